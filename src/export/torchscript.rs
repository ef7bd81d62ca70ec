//! TorchScript: an archive that `torch.jit.load` and C++'s `torch::jit::load` run.

use tch::{CModule, IValue, Tensor};

use super::Export;
use crate::{Error, Result};

/// The extra file in the archive that says what the graph cannot.
pub const EXTRA_FILE: &str = "visage.json";
/// The batch that a written archive is tried with: another than it was recorded with.
const TRIAL: i64 = 3;
/// How far its outputs may be from the model's own, relative to the largest of them.
const TOLERANCE: f64 = 1e-5;

impl Export {
    /// The archive. `forward(pictures)` gives the embedding, or with a classifier the pair of
    /// embedding and logits; the state dict has PyTorch's keys; the metadata is the extra file
    /// [`EXTRA_FILE`]. It was loaded back and gave the model's own answers.
    ///
    /// # Errors
    /// The archive does not compute what the model does, or libtorch fails.
    pub fn to_torchscript(&self) -> Result<Vec<u8>> {
        let archive = self.trace()?.archive(EXTRA_FILE, &self.metadata().to_string())?;
        let module = CModule::load_data(&mut archive.as_slice())?;
        let pictures = self.example(TRIAL);
        let found = run(&module, &pictures)?;
        for ((name, _), (found, wanted)) in
            self.outputs().iter().zip(found.iter().zip(self.forward(&pictures)?))
        {
            let scale = f64::try_from(wanted.abs().max())?.max(f64::MIN_POSITIVE);
            let difference = f64::try_from((found - wanted).abs().max())? / scale;
            if difference.is_nan() || difference > TOLERANCE {
                return Err(Error::Config(format!(
                    "the exported graph does not compute what the model does: {name} differs by \
                     {difference:.1e} of its largest value; are the weights finite?"
                )));
            }
        }
        Ok(archive)
    }
}

/// All outputs of a module.
fn run(module: &CModule, pictures: &Tensor) -> Result<Vec<Tensor>> {
    let answer = module.forward_is(&[IValue::Tensor(pictures.shallow_clone())])?;
    let tensors = match answer {
        IValue::Tuple(values) => values,
        one => vec![one],
    };
    Ok(tensors.into_iter().map(Tensor::try_from).collect::<Result<_, _>>()?)
}
