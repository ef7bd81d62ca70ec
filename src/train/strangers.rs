//! Faces of strangers, on which the UNKNOWN threshold is chosen.
//!
//! They come from a folder, or are part of the program: embeddings of some thousand people by each
//! embedded trunk (pretrained/strangers.py), without names or pictures.

use tch::{Kind, Tensor};

use super::scoring::Labelled;
use crate::eval::Embeddings;
use crate::eval::open_set::wilson;
use crate::models::Architecture;
use crate::recognise::embedder::{from_tensor, to_tensor};
use crate::recognise::{MeasuredFpir, StrangerSource};
use crate::weights::manifest;
use crate::{Error, Result};

/// No rate below this number of strangers in all of them is promised: with none in n seen, up to 3 / n
/// are possible (the rule of three, 95 %).
const RULE_OF_THREE: f64 = 3.0;

/// Embeddings of strangers.
#[derive(Debug, Clone)]
pub struct Strangers {
    /// The same faces in one or several framings. The one that comes nearest to the gallery counts:
    /// how the gallery's pictures frame a face is not known well enough to choose by it, and another
    /// framing than the gallery's is farther away than a user's photo will be.
    pub views: Vec<Embeddings>,
    /// Number of people.
    pub people: usize,
    /// Where they come from.
    pub source: StrangerSource,
}

impl Strangers {
    /// The false-positive identification rate to keep: `asked`, or by default `default`, or as little as they
    /// can show.
    ///
    /// # Errors
    /// `asked` is less than they can show.
    pub fn rate(&self, asked: Option<f64>, default: f64) -> Result<f64> {
        let least = RULE_OF_THREE / self.people as f64;
        match asked {
            Some(asked) if asked < least => Err(Error::Config(format!(
                "--fpir {}%: {} strangers can show no less than {:.2}% (3 in {0}); give more of them with \
                 --strangers, or a higher rate",
                100.0 * asked,
                self.people,
                100.0 * least,
            ))),
            asked => Ok(asked.unwrap_or_else(|| least.clamp(default, 1.0))),
        }
    }

    /// The rate that was measured on them, where `asked` was to be kept, with its interval.
    pub fn measured(&self, asked: Option<f64>, value: f64) -> MeasuredFpir {
        // Faces of one person are not independent: the interval counts people.
        let interval = wilson((value * self.people as f64).round() as usize, self.people);
        MeasuredFpir {
            asked,
            value,
            low: interval.low.min(value),
            high: interval.high.max(value),
            people: self.people,
            source: self.source.clone(),
        }
    }

    /// The strangers that are part of the program, for the embedded weights of that architecture.
    ///
    /// # Errors
    /// A program that was built wrongly, which a test excludes.
    pub fn embedded(architecture: Architecture) -> Result<Option<Self>> {
        let file = manifest::tool("strangers")?;
        let prefix = format!("{}.", architecture.name());
        let mut views = Vec::new();
        for (_, tensor) in file.tensors.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            views.push(from_tensor(tensor)?);
        }
        let people = views.iter().map(Embeddings::rows).min().unwrap_or(0);
        let source = StrangerSource::Embedded;
        Ok((people > 0).then_some(Self { views, people, source }))
    }

    /// What a fine-tuned trunk would make of them, estimated from what fine-tuning did to the faces in
    /// `before`: their embeddings by the pretrained trunk and, in `after`, by the fine-tuned one.
    ///
    /// Ridge regression from the one to the other, pulled towards the identity map: with the centred
    /// rows X before and Y after, `A = (X'X + r I)^-1 (X'Y + r I)`, r being a thousandth of X's total
    /// scatter per identity. Rows of unit length stay so. Where fine-tuning changed nothing, nothing is
    /// estimated. On two trunks fine-tuned on five identities, 0.4 and 1.6 % of other strangers got a
    /// name where 1 % was estimated (docs/evaluation.md).
    ///
    /// # Errors
    /// An error from libtorch. Embeddings of different shapes.
    pub fn estimated(self, before: &Labelled, after: &Labelled) -> Result<Self> {
        if before.embeddings == after.embeddings {
            return Ok(self);
        }
        let double = |embeddings| Ok::<_, Error>(to_tensor(embeddings)?.f_to_kind(Kind::Double)?);
        let (x, y) = (double(&before.embeddings)?, double(&after.embeddings)?);
        if x.size() != y.size() {
            let text = format!("embeddings of shape {:?} and {:?}", x.size(), y.size());
            return Err(Error::Data(text));
        }
        let identities = before.labels.iter().max().map_or(1, |label| label + 1) as f64;
        let mean = |rows: &Tensor| rows.f_mean_dim([0].as_slice(), true, Kind::Double);
        let (centre_x, centre_y) = (mean(&x)?, mean(&y)?);
        let (x, y) = (x.f_sub(&centre_x)?, y.f_sub(&centre_y)?);
        let scatter = x.f_tr()?.f_matmul(&x)?;
        let pull = scatter.f_trace()?.double_value(&[]) / (1000.0 * identities);
        let ridge = Tensor::f_eye(scatter.size()[0], (Kind::Double, tch::Device::Cpu))?
            .f_mul_scalar(pull)?;
        let target = x.f_tr()?.f_matmul(&y)?.f_add(&ridge)?;
        let map = Tensor::f_linalg_solve(&scatter.f_add(&ridge)?, &target, true)?;
        let is_unit = |row: &[f32]| {
            (row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() - 1.0).abs() < 1e-3
        };
        let unit = after.embeddings.iter().all(is_unit);
        let views = self.views.iter().map(|view| {
            let rows = double(view)?.f_sub(&centre_x)?.f_matmul(&map)?.f_add(&centre_y)?;
            let rows = match unit {
                true => {
                    rows.f_div(&rows.f_linalg_norm(2, [1].as_slice(), true, Kind::Double)?)?
                }
                false => rows,
            };
            from_tensor(&rows)
        });
        let views = views.collect::<Result<_>>()?;
        Ok(Self { views, source: StrangerSource::Estimated, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(values: &[f32], labels: &[usize]) -> Labelled {
        let dim = values.len() / labels.len();
        let embeddings = Embeddings::new(labels.len(), dim, values.to_vec()).unwrap();
        Labelled { embeddings, labels: labels.to_vec() }
    }

    #[test]
    fn each_embedded_trunk_has_strangers_of_unit_length() {
        for architecture in [Architecture::OpenFace, Architecture::DlibResnet] {
            let strangers = Strangers::embedded(architecture).unwrap().unwrap();
            assert_eq!(strangers.views.len(), 4);
            assert!(strangers.people > 3000 && strangers.views.iter().all(|v| v.dim() == 128));
            let row = strangers.views[0].row(0);
            let norm: f32 = row.iter().map(|value| value * value).sum();
            assert!((norm - 1.0).abs() < 5e-3, "{norm}");
        }
        assert!(Strangers::embedded(Architecture::Vgg16).unwrap().is_none());
    }

    #[test]
    fn the_estimate_follows_what_fine_tuning_did() {
        // Fine-tuning moved everything by (3, 0) and stretched the second axis, on which faces differ.
        let before = labelled(&[0.0, -9.0, 0.0, 9.0, 0.0, -7.0, 0.0, 7.0], &[0, 1, 2, 3]);
        let after = labelled(&[3.0, -18.0, 3.0, 18.0, 3.0, -14.0, 3.0, 14.0], &[0, 1, 2, 3]);
        let view = Embeddings::new(1, 2, vec![1.0, 4.0]).unwrap();
        let known = Strangers { views: vec![view], people: 1, source: StrangerSource::Embedded };
        let found = known.clone().estimated(&before, &after).unwrap();
        assert_eq!(found.source, StrangerSource::Estimated);
        // X'X is 260 on that axis, r is 0.065: the second axis is stretched by 1.9998, the first kept.
        let row = found.views[0].row(0);
        assert!((row[0] - 4.0).abs() < 1e-5 && (row[1] - 7.999).abs() < 1e-3, "{row:?}");
        let same = known.estimated(&before, &before).unwrap();
        assert_eq!(
            (same.source, same.views[0].row(0)),
            (StrangerSource::Embedded, &[1.0, 4.0][..])
        );
    }
}
