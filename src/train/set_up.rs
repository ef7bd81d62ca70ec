//! What every training of a trunk does before its first batch.

use serde::Serialize;
use tch::Device;

use super::plan::FitConfig;
use super::settings::{BnMode, ScheduleSettings, TuningSettings};
use super::stages::estimate_bn_statistics;
use crate::data::store::PictureStore;
use crate::device;
use crate::models::{Backbone, Compute, Stage};
use crate::native::{Half, cuda};
use crate::progress::Reporter;
use crate::weights::Source;
use crate::{Error, Result};

/// Resolves automatic settings; config.toml gets the resolved values.
///
/// # Errors
/// An error from libtorch.
pub fn resolve_auto(
    tuning: &mut TuningSettings,
    source: &Source,
    backbone: &mut Backbone,
    deterministic: bool,
    say: &Reporter,
) -> Result<()> {
    if let Some(flag) = tuning.unused_cache_flag() {
        say.line(&format!(
            "note: {flag} has no effect without --freeze: no output of frozen blocks is kept"
        ));
    }
    let bn = if *source == Source::Random { BnMode::Train } else { BnMode::Eval };
    tuning.bn.get_or_insert(bn);
    let half = tuning.precision.set_up(backbone.device())?;
    if half == Some(Half::Float16) && backbone.device() == Device::Cpu {
        say.warn(
            "--precision f16: CPUs compute float16 many times slower than float32; use bf16 if the CPU \
             supports it, or auto",
        );
    }
    tuning.precision = tuning.precision.explicit(backbone.device());
    // A training has one input size, so cuDNN may benchmark for the fastest kernel.
    cuda::benchmark_cudnn(backbone.device().is_cuda() && !deterministic)?;
    backbone.set_compute(Compute::fast(half))
}

/// Batch normalisation in eval mode needs running statistics, which random weights do not have:
/// computes them on some pictures.
///
/// # Errors
/// A picture that can no longer be read, or an error from libtorch.
pub fn warm_up_batchnorm(
    backbone: &mut Backbone,
    source: &Source,
    tuning: &TuningSettings,
    faces: &PictureStore,
    pictures: &[usize],
) -> Result<()> {
    let rests = tuning.bn == Some(BnMode::Eval)
        || tuning.unfreeze_every > 0
        || backbone.stages().iter().any(Stage::is_frozen);
    match *source == Source::Random && rests {
        true => estimate_bn_statistics(backbone, faces, pictures),
        false => Ok(()),
    }
}

/// The device and the precision of a run.
pub fn device_summary(device: Device, tuning: &TuningSettings) -> String {
    format!("on {} in {}", device::name(device), tuning.precision.name())
}

/// The loop's plan, with loss scaling if the trunk computes in float16.
pub fn plan(schedule: &ScheduleSettings, epochs: usize, lr: f64, backbone: &Backbone) -> FitConfig {
    FitConfig { scale_loss: backbone.compute().scales_loss(), ..schedule.plan(epochs, lr) }
}

/// Settings that do not change what a training computes; models of the same training are the same file.
const OF_THE_RUN: [&str; 2] = ["out", "checkpoint-every"];

/// A run's settings as the JSON in its model files.
///
/// # Errors
/// Settings that JSON cannot hold.
pub fn settings_json<S: Serialize>(settings: &S) -> Result<serde_json::Value> {
    let mut json =
        serde_json::to_value(settings).map_err(|error| Error::Config(error.to_string()))?;
    if let Some(settings) = json.as_object_mut() {
        OF_THE_RUN.iter().for_each(|name| drop(settings.remove(*name)));
    }
    Ok(json)
}
