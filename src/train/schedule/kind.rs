//! One name for each schedule, with usual numbers for a run of a known length.

use serde::{Deserialize, Serialize};

use super::{Cycle, CycleShape, OneCycle, Schedule};

/// A schedule by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Always the base learning rate
    Constant,
    /// Linear warm-up, then cosine decay
    #[default]
    WarmupCosine,
    /// Cosine decay with warm restarts (SGDR): cycles of 1, 2, 4, ... epochs
    CosineRestarts,
    /// Divided by 10 after each third of the run
    Step,
    /// Triangular cycles: two epochs up, two down
    Triangular,
    /// Triangular cycles, the amplitude halved after each
    Triangular2,
    /// Triangular cycles, the amplitude decaying exponentially to a tenth at the end of the run
    ExpRange,
    /// One cycle: up, then down (super-convergence)
    OneCycle,
    /// Divided by 10 after ten epochs without improvement
    Plateau,
}

impl ScheduleKind {
    /// Whether it repeats cycles of a length to choose.
    pub fn has_cycle(self) -> bool {
        matches!(self, Self::Triangular | Self::Triangular2 | Self::ExpRange)
    }

    /// Whether it begins with a warm-up of a length to choose.
    pub fn has_warmup(self) -> bool {
        matches!(self, Self::Constant | Self::WarmupCosine | Self::Plateau)
    }

    /// The schedule for a run of this length, with the numbers that the variants' help names.
    pub fn over(self, steps_per_epoch: u64, epochs: u64) -> Schedule {
        let total_steps = steps_per_epoch.saturating_mul(epochs).max(1);
        let triangle = |shape| Cycle::new(shape, steps_per_epoch.saturating_mul(2).max(1));
        match self {
            // What Plateau adds depends on the scores: see [`Plateau`](super::Plateau).
            Self::Constant | Self::Plateau => Schedule::Constant,
            Self::WarmupCosine => Schedule::WarmupCosine {
                warmup_steps: total_steps / 10,
                total_steps,
                final_fraction: 0.0,
            },
            Self::CosineRestarts => Schedule::CosineRestarts {
                first_steps: steps_per_epoch.max(1),
                longer: 2,
                final_fraction: 0.0,
            },
            Self::Step => Schedule::Step { every: total_steps.div_ceil(3), gamma: 0.1 },
            Self::Triangular => Schedule::Cyclic(triangle(CycleShape::Triangular)),
            Self::Triangular2 => Schedule::Cyclic(triangle(CycleShape::Triangular2)),
            Self::ExpRange => {
                let gamma = 0.1f64.powf(1.0 / total_steps as f64);
                Schedule::Cyclic(Cycle { gamma, ..triangle(CycleShape::ExpRange) })
            }
            Self::OneCycle => Schedule::OneCycle(OneCycle::new(total_steps)),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "cli")]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_name_is_the_command_lines_and_its_schedule_survives_a_file() {
        for kind in ScheduleKind::value_variants() {
            let flag = kind.to_possible_value().unwrap();
            assert_eq!(serde_json::to_value(kind).unwrap(), flag.get_name());
            for (steps, epochs) in [(0, 0), (1, 1), (7, 3), (100, 20), (u64::MAX, 9)] {
                let schedule = kind.over(steps, epochs);
                schedule.validate().unwrap();
                let text = toml::to_string(&schedule);
                if steps < u64::MAX {
                    let text = text.unwrap();
                    assert_eq!(toml::from_str::<Schedule>(&text).unwrap(), schedule, "{text}");
                }
                for step in [0, 1, 2, 59, 60, 61, 1999, 2000, u64::MAX] {
                    let (factor, momentum) = (schedule.factor(step), schedule.momentum(step));
                    assert!((0.0..=1.0).contains(&factor), "{kind:?}, {step}: {factor}");
                    assert!(momentum.is_none_or(|m| (0.85..=0.95).contains(&m)), "{momentum:?}");
                    assert_eq!(momentum.is_some(), schedule.beta2().is_some());
                }
            }
        }
    }
}
