//! What the training loop is told: epochs, rates, when to stop.

use std::rc::Rc;

use super::interrupt::Interrupt;
use super::interval::Interval;
use super::monitor::Monitor;
use super::schedule::{Better, Cycle, Plateau, PlateauConfig, Schedule, ScheduleKind};
use super::world::World;
use crate::Result;

/// Settings of the training loop: epochs, learning rate, schedule, clipping, early stopping.
#[derive(Debug, Clone)]
pub struct FitConfig {
    /// Maximum number of epochs.
    pub epochs: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Learning-rate schedule.
    pub schedule: ScheduleKind,
    /// Fraction of all steps used for warm-up, in schedules that do not cycle.
    pub warmup: f64,
    /// Cycle length in epochs, in schedules that cycle.
    pub cycle: f64,
    /// Maximum gradient norm over all parameters; `None`: no clipping.
    pub clip: Option<f64>,
    /// Loss scaling, for float16.
    pub scale_loss: bool,
    /// Early stopping: number of epochs without improvement; 0: never.
    pub patience: usize,
    /// Metric that decides which epoch is the best; `None`: the task's default.
    pub monitor: Option<String>,
    /// Log the metrics of every N-th step; 0: never. The host waits for the device
    /// then, and only then.
    pub log_interval: u64,
    /// Writes the last model after every epoch, so that a killed run leaves one; else at the end.
    pub keep_last: bool,
    /// Prints the line of every n-th epoch, and of the last one.
    pub report_every: usize,
    /// How often a checkpoint is written.
    pub checkpoint_every: Interval,
    /// Goes on without this many pictures that can no longer be read.
    pub max_bad: usize,
    /// Stops at the first sign of trouble, instead of going back to the start of the epoch.
    pub strict_numerics: bool,
    /// Ends the training after the step it is in.
    pub interrupt: Interrupt,
    /// The processes that train together.
    pub world: Rc<World>,
}

impl FitConfig {
    /// The rates of each step.
    pub(super) fn schedule(&self, steps_per_epoch: usize) -> Schedule {
        let total_steps = (steps_per_epoch * self.epochs) as u64;
        let warmup_steps = (self.warmup * total_steps as f64).round() as u64;
        let rising =
            |final_fraction| Schedule::WarmupCosine { warmup_steps, total_steps, final_fraction };
        match self.schedule {
            ScheduleKind::WarmupCosine => rising(0.0),
            ScheduleKind::Constant | ScheduleKind::Plateau => rising(1.0),
            cycling => match cycling.over(steps_per_epoch as u64, self.epochs as u64) {
                Schedule::Cyclic(cycle) => {
                    let half = self.cycle * steps_per_epoch as f64 / 2.0;
                    let steps = (half.round() as u64).max(1);
                    Schedule::Cyclic(Cycle { steps_up: steps, steps_down: steps, ..cycle })
                }
                other => other,
            },
        }
    }

    /// The plateau schedule, if it is that.
    ///
    /// # Errors
    /// As for [`Plateau::new`].
    pub(super) fn plateau(&self, monitor: Monitor) -> Result<Option<Plateau>> {
        let is_plateau = self.schedule == ScheduleKind::Plateau;
        let better = if monitor.is_lower_better() { Better::Lower } else { Better::Higher };
        let config = PlateauConfig { better, ..PlateauConfig::default() };
        is_plateau.then(|| Plateau::new(config)).transpose()
    }
}
