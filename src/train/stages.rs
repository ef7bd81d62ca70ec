//! Which stages of a trunk train when, and how fast.

use std::collections::BTreeMap;

use tch::Tensor;

use super::optim::Optimizer;
use crate::Result;
use crate::data::store::PictureStore;
use crate::models::{Backbone, Compute, Mode};

/// Learning-rate factor of every parameter below the top stage, by name: `decay` to the
/// power of the number of stages above it (discriminative fine-tuning: Howard and Ruder, "Universal
/// language model fine-tuning", 2018, who take 1 / 2.6).
pub fn layer_rates(backbone: &Backbone, decay: f64) -> BTreeMap<String, f64> {
    let mut rates = BTreeMap::new();
    for (above, stage) in backbone.stages().iter().rev().enumerate() {
        let share = decay.powi(above as i32);
        for param in stage.blocks.iter().flat_map(|block| backbone.params.below(block)) {
            rates.insert(param.name.clone(), share);
        }
    }
    rates
}

/// Gives every parameter its share of [`layer_rates`]; those of a head keep the whole rate.
pub fn scale_layers(optimizer: &mut Optimizer, backbone: &Backbone, decay: f64) {
    let rates = layer_rates(backbone, decay);
    optimizer.scale_rates(|name| rates.get(name).copied().unwrap_or(1.0));
}

/// Estimates the running statistics of a trunk with random weights from `pictures`: the initial mean 0
/// and variance 1 do not match its layers, so in eval mode its maps would be of any scale.
///
/// # Errors
/// An error from libtorch.
pub fn estimate_bn_statistics(
    backbone: &mut Backbone,
    faces: &PictureStore,
    pictures: &[usize],
) -> Result<()> {
    // Statistics are computed in float32, even with mixed precision.
    let compute = backbone.compute();
    backbone.set_compute(Compute::fast(None))?;
    let updated = update_statistics(backbone, faces, pictures);
    backbone.set_compute(compute)?;
    updated
}

fn update_statistics(backbone: &Backbone, faces: &PictureStore, pictures: &[usize]) -> Result<()> {
    // A frozen stage stays in eval mode.
    let parameters = backbone.params.iter().filter(|param| param.is_parameter);
    let frozen: Vec<&Tensor> =
        parameters.map(|param| &param.tensor).filter(|tensor| !tensor.requires_grad()).collect();
    let set_unfrozen = |unfrozen: bool| {
        for tensor in &frozen {
            let _ = tensor.set_requires_grad(unfrozen);
        }
    };
    set_unfrozen(true);
    let updated = pictures.chunks(BN_BATCHES.0).cycle().take(BN_BATCHES.1).try_for_each(|batch| {
        let pictures = faces.batch(batch, backbone.device())?;
        let _ = tch::no_grad(|| backbone.map_from(0, &pictures, Mode::TRAIN));
        Ok(())
    });
    set_unfrozen(false);
    updated
}

/// Pictures per batch, and batches: enough for statistics with a momentum of 0.1 to forget their
/// initial values.
const BN_BATCHES: (usize, usize) = (16, 40);

/// Gradual unfreezing: at first only the top stage trains, and after every N epochs the next
/// one below joins (Howard and Ruder, 2018).
#[derive(Debug)]
pub struct GradualUnfreezing {
    /// The stages that train in the end, from the top down: name, and parameters.
    stages: Vec<(String, Vec<Tensor>)>,
    every: usize,
    active: usize,
}

impl GradualUnfreezing {
    /// For the stages that are trainable now; frozen ones stay frozen. With `every` 0 nothing
    /// changes.
    pub fn new(backbone: &Backbone, every: usize) -> Self {
        let stages = backbone.stages().iter().rev().map(|stage| {
            let parameters = stage.blocks.iter().flat_map(|block| backbone.params.below(block));
            let training = parameters.filter(|param| param.tensor.requires_grad());
            (stage.blocks.join(", "), training.map(|p| p.tensor.shallow_clone()).collect())
        });
        let stages = stages.filter(|(_, parameters): &(_, Vec<_>)| !parameters.is_empty());
        let stages: Vec<_> = stages.collect();
        Self { active: stages.len(), stages, every }
    }

    /// Freezes and unfreezes for `epoch`, counted from 1. A sentence where that changed something.
    pub fn at(&mut self, epoch: usize) -> Option<String> {
        if self.every == 0 {
            return None;
        }
        let active = (1 + epoch.saturating_sub(1) / self.every).min(self.stages.len());
        if active == self.active {
            return None;
        }
        for (number, (_, parameters)) in self.stages.iter().enumerate() {
            for parameter in parameters {
                let _ = parameter.set_requires_grad(number < active);
            }
        }
        let names: Vec<&str> =
            self.stages[..active].iter().map(|(name, _)| name.as_str()).collect();
        self.active = active;
        let (count, all) = (names.len(), self.stages.len());
        let newest = names.last().copied().unwrap_or_default();
        Some(format!("from epoch {epoch} on {count} of {all} stages train, down to {newest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::FaceFolder;
    use crate::data::testing::face_folder;
    use crate::models::{Architecture, BuildOptions};
    use tch::Device;

    fn trunk() -> Backbone {
        let options = BuildOptions { embedding_dim: Some(8), ..BuildOptions::default() };
        Backbone::build(Architecture::DenseNet121, Device::Cpu, &options).unwrap()
    }

    #[test]
    fn rates_fall_from_the_top_down() {
        let trunk = trunk();
        let rates = layer_rates(&trunk, 0.5);
        assert_eq!(rates.len(), trunk.params.trainable().len());
        for (key, share) in [
            ("embedding.bias", 1.0),
            ("features.norm5.weight", 0.5),
            ("features.denseblock4.denselayer1.conv1.weight", 0.5),
            ("features.transition3.conv.weight", 0.25),
            ("features.conv0.weight", 0.5f64.powi(5)),
        ] {
            assert_eq!(rates[key], share, "{key}");
        }
    }

    #[test]
    fn a_random_trunk_has_seen_pictures_before_it_rests() {
        let folder = tempfile::tempdir().unwrap();
        face_folder(folder.path(), &[("ann", 3), ("bob", 3)]);
        let pictures = FaceFolder::open(folder.path(), true, 32, &|_, _| {}).unwrap();
        let faces = pictures.fitted;
        let mut trunk = trunk();
        trunk.params.freeze_all();
        let all: Vec<usize> = (0..6).collect();
        let batch = faces.batch(&all, Device::Cpu).unwrap();
        // At rest a layer gives what it gave on these pictures in training.
        let apart = |trunk: &Backbone| {
            let at_rest = trunk.map_from(0, &batch, Mode::EVAL);
            let key = "features.norm5.running_mean";
            let mean = trunk.params.iter().find(|param| param.name == key).unwrap();
            (at_rest.abs().max().double_value(&[]), mean.tensor.abs().max().double_value(&[]))
        };
        let (before, untouched) = apart(&trunk);
        estimate_bn_statistics(&mut trunk, &faces, &all).unwrap();
        let (after, settled) = apart(&trunk);
        assert!(untouched == 0.0 && settled > 0.0, "{untouched} {settled}");
        assert!(after.is_finite() && after < 20.0, "{before} before, {after} after");
        assert!(trunk.params.trainable().is_empty(), "frozen it was, frozen it stays");
    }

    #[test]
    fn stages_join_from_the_top_down_and_frozen_ones_never() {
        let trunk = trunk();
        trunk.params.freeze(&["features.conv0".into(), "features.norm0".into()]).unwrap();
        let training = |prefix: &str| {
            trunk.params.trainable().iter().filter(|(name, _)| name.starts_with(prefix)).count()
        };
        let (all, last) = (training(""), training("features.denseblock4"));
        let mut unfreezing = GradualUnfreezing::new(&trunk, 2);
        let said: Vec<_> = (1..=12).map(|epoch| unfreezing.at(epoch)).collect();
        assert_eq!(said.iter().flatten().count(), 5, "{said:?}");
        assert!(said[2].as_ref().unwrap().contains("features.denseblock4"), "{said:?}");
        assert_eq!(training(""), all);

        let mut unfreezing = GradualUnfreezing::new(&trunk, 1);
        assert!(unfreezing.at(1).unwrap().contains("1 of 5"));
        assert_eq!((training(""), training("embedding")), (2, 2));
        assert!(unfreezing.at(2).is_some());
        assert_eq!(training("features.denseblock4"), last);
        assert_eq!(training("features.denseblock3"), 0);
        assert_eq!(GradualUnfreezing::new(&trunk, 0).at(1), None);
    }
}
