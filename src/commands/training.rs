//! What all trainings of a trunk have in common.

use super::Context;
use crate::Result;
use crate::models::Backbone;
use crate::train::set_up;
pub use crate::train::set_up::{device_summary, plan, warm_up_batchnorm};
use crate::train::settings::TuningSettings;
use crate::weights::Source;

/// Resolves automatic settings; config.toml gets the resolved values.
pub fn resolve_auto(
    context: &Context,
    tuning: &mut TuningSettings,
    source: &Source,
    backbone: &mut Backbone,
) -> Result<()> {
    set_up::resolve_auto(tuning, source, backbone, context.common.deterministic, &context.say)
}
