//! TorchScript export, for `torch.jit.load` and C++'s `torch::jit::load`.

use tch::{CModule, IValue, Tensor};

use super::Export;
use crate::{Error, Result};

/// Extra file in the archive with the metadata.
pub const EXTRA_FILE: &str = "visage.json";
/// Batch size for checking the archive, different from the traced one.
const TRIAL: i64 = 3;
/// Tolerance of its outputs, relative to the largest of them.
const TOLERANCE: f64 = 1e-5;

impl Export {
    /// The archive. `forward(pictures)` returns the embedding or, with a classifier, embedding and
    /// logits; the state dict has PyTorch's keys; metadata is in the extra file [`EXTRA_FILE`]. The
    /// archive is loaded again and its outputs are compared with the model's.
    ///
    /// # Errors
    /// The archive's outputs differ from the model's, or libtorch fails.
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
