//! What every training of a trunk begins with.

use tch::Device;

use super::Context;
use crate::Result;
use crate::data::store::PictureStore;
use crate::device;
use crate::models::{Backbone, Compute, Stage};
use crate::native::{Half, cuda};
use crate::train::fit::Plan;
use crate::train::settings::{BnMode, ScheduleSettings, TuningSettings};
use crate::train::stages::settle_statistics;
use crate::weights::Source;

/// What is decided where the flags leave it open; written to config.toml as decided, so that
/// repeating the run needs no rule.
pub fn settle(
    context: &Context,
    tuning: &mut TuningSettings,
    source: &Source,
    backbone: &mut Backbone,
) -> Result<()> {
    let bn = if *source == Source::Random { BnMode::Train } else { BnMode::Eval };
    tuning.bn.get_or_insert(bn);
    let half = tuning.precision.set_up(backbone.device())?;
    if half == Some(Half::Float16) && backbone.device() == Device::Cpu {
        let text = "--precision f16: processors compute float16 many times slower than float32; bf16 \
                    is the fast one where there is one, and auto chooses";
        context.say.warn(text);
    }
    tuning.precision = tuning.precision.explicit(backbone.device());
    // A training has one size of input: worth a look for the fastest kernel.
    cuda::benchmark_cudnn(backbone.device().is_cuda() && !context.common.deterministic)?;
    backbone.set_compute(Compute::fast(half))
}

/// Batch normalisation that rests needs statistics, which random weights come without: the trunk
/// sees some pictures first.
pub fn settle_random(
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
        true => settle_statistics(backbone, faces, pictures),
        false => Ok(()),
    }
}

/// Where a run computes, and in what.
pub fn place(device: Device, tuning: &TuningSettings) -> String {
    format!("on {} in {}", device::name(device), tuning.precision.name())
}

/// How long and how fast, for a trunk that computes as it does.
pub fn plan(schedule: &ScheduleSettings, epochs: usize, lr: f64, backbone: &Backbone) -> Plan {
    Plan { scale_loss: backbone.compute().scales_loss(), ..schedule.plan(epochs, lr) }
}
