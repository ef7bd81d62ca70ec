//! Learning-rate schedules: pure functions of the step, so a resumed run needs no state for them.
//! Only [`Plateau`] looks at scores; its state is saved.
//!
//! A schedule says what the base learning rate is multiplied by. Those that cycle also say what
//! beta1 (Adam) or the momentum (SGD) is at each step.

mod cycle;
#[cfg(test)]
mod golden;
mod kind;
mod one_cycle;
mod plateau;

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::optim::StepRates;
use crate::{Error, Result};

pub use cycle::{Cycle, CycleShape, MomentumCycle};
pub use kind::ScheduleKind;
pub use one_cycle::OneCycle;
pub use plateau::{Better, Plateau, PlateauConfig};

/// What the base learning rate is multiplied by at each step.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// Always 1.
    #[default]
    Constant,
    /// A linear rise over the first `warmup_steps`, then half a cosine down to `final_fraction`
    /// at `total_steps`, where it stays (Loshchilov and Hutter, "SGDR", 2017, without restarts).
    WarmupCosine {
        /// Steps before the factor is 1. Step `s` of them has the factor `(s + 1) / (warmup + 1)`.
        warmup_steps: u64,
        /// The step at which the cosine is down. Not beyond the warm-up: straight to the end value.
        total_steps: u64,
        /// The factor at the end, usually 0 to 0.1.
        final_fraction: f64,
    },
    /// Half a cosine from 1 down to `final_fraction`, again and again (Loshchilov and Hutter 2017;
    /// PyTorch's `CosineAnnealingWarmRestarts`).
    CosineRestarts {
        /// The length of the first half cosine, at least 1.
        first_steps: u64,
        /// How many times longer each is than the one before, at least 1.
        longer: u64,
        /// The factor that each goes down to.
        final_fraction: f64,
    },
    /// Down by a factor every so many steps: `gamma^(step / every)`, rounded down (PyTorch's
    /// `StepLR`).
    Step {
        /// Steps between two falls, at least 1.
        every: u64,
        /// The factor of one fall.
        gamma: f64,
    },
    /// Up and down between two factors, the momentum the other way (Smith 2017).
    Cyclic(Cycle),
    /// Up once and down once over the whole run, the momentum the other way (Smith 2018).
    OneCycle(OneCycle),
}

impl Schedule {
    /// The factor of step `step`, counted from 0.
    pub fn factor(&self, step: u64) -> f64 {
        match *self {
            Self::Constant => 1.0,
            Self::WarmupCosine { warmup_steps, .. } if step < warmup_steps => {
                (step + 1) as f64 / (warmup_steps + 1) as f64
            }
            Self::WarmupCosine { warmup_steps, total_steps, final_fraction } => {
                let length = total_steps.saturating_sub(warmup_steps);
                let done = match length {
                    0 => 1.0,
                    _ => ((step - warmup_steps) as f64 / length as f64).min(1.0),
                };
                half_cosine(1.0, final_fraction, done)
            }
            Self::CosineRestarts { first_steps, longer, final_fraction } => {
                let (place, length) = place_in_restarts(step, first_steps, longer);
                half_cosine(1.0, final_fraction, place as f64 / length as f64)
            }
            Self::Step { every, gamma } => gamma.powf((step / every.max(1)) as f64),
            Self::Cyclic(cycle) => cycle.factor(step),
            Self::OneCycle(cycle) => cycle.factor(step),
        }
    }

    /// Beta1 (Adam) or the momentum (SGD) of step `step`; `None` leaves the optimiser's own.
    pub fn momentum(&self, step: u64) -> Option<f64> {
        match self {
            Self::Cyclic(cycle) => cycle.momentum_at(step),
            Self::OneCycle(cycle) => cycle.momentum_at(step),
            _ => None,
        }
    }

    /// Adam's beta2 while beta1 cycles; `None` leaves the optimiser's own.
    pub fn beta2(&self) -> Option<f64> {
        let cycling = match self {
            Self::Cyclic(cycle) => cycle.momentum,
            Self::OneCycle(cycle) => cycle.momentum,
            _ => None,
        };
        cycling.map(|momentum| momentum.beta2)
    }

    /// Everything an optimiser needs for step `step`, from the base learning rate.
    pub fn rates(&self, step: u64, base_lr: f64) -> StepRates {
        StepRates {
            lr: base_lr * self.factor(step),
            momentum: self.momentum(step),
            beta2: self.beta2(),
        }
    }

    /// Checks what can be checked before any work starts.
    ///
    /// # Errors
    /// Names the setting, its value and what it may be.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Constant => Ok(()),
            Self::WarmupCosine { final_fraction, .. } => fraction("final_fraction", final_fraction),
            Self::CosineRestarts { first_steps, longer, final_fraction } => {
                at_least_one("first_steps", first_steps)?;
                at_least_one("longer", longer)?;
                fraction("final_fraction", final_fraction)
            }
            Self::Step { every, gamma } => {
                at_least_one("every", every)?;
                positive("gamma", gamma)
            }
            Self::Cyclic(cycle) => cycle.validate(),
            Self::OneCycle(cycle) => cycle.validate(),
        }
    }
}

/// From `start` to `end` along half a cosine, `done` from 0 to 1.
fn half_cosine(start: f64, end: f64, done: f64) -> f64 {
    end + (start - end) * 0.5 * (1.0 + (PI * done).cos())
}

/// How far `step` is into its half cosine, and how long that one is.
fn place_in_restarts(step: u64, first_steps: u64, longer: u64) -> (u64, u64) {
    let mut length = first_steps.max(1);
    if longer <= 1 {
        return (step % length, length);
    }
    let mut place = step;
    while place >= length {
        place -= length;
        length = length.saturating_mul(longer);
    }
    (place, length)
}

/// An impossible setting of a schedule.
fn impossible(setting: &str, value: impl std::fmt::Display, wanted: &str) -> Error {
    Error::Config(format!("the schedule's {setting} is {value}; it must be {wanted}"))
}

fn at_least_one(setting: &str, value: u64) -> Result<()> {
    if value == 0 { Err(impossible(setting, value, "at least 1")) } else { Ok(()) }
}

fn positive(setting: &str, value: f64) -> Result<()> {
    let fits = value.is_finite() && value > 0.0;
    if fits { Ok(()) } else { Err(impossible(setting, value, "above 0")) }
}

fn fraction(setting: &str, value: f64) -> Result<()> {
    let fits = (0.0..=1.0).contains(&value);
    if fits { Ok(()) } else { Err(impossible(setting, value, "from 0 to 1")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_pytorchs_linear_and_cosine_schedulers() {
        let golden: serde_json::Value = serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/optim.json"
        )))
        .unwrap();
        let golden = &golden["schedule"];
        let schedule = Schedule::WarmupCosine {
            warmup_steps: golden["warmup_steps"].as_u64().unwrap(),
            total_steps: golden["total_steps"].as_u64().unwrap(),
            final_fraction: golden["final_fraction"].as_f64().unwrap(),
        };
        let factors = golden["factors"].as_array().unwrap();
        for (step, factor) in factors.iter().enumerate() {
            let found = schedule.factor(step as u64);
            assert!((found - factor.as_f64().unwrap()).abs() < 1e-12, "step {step}: {found}");
        }
        assert_eq!(factors.len(), 21);
    }

    #[test]
    fn the_corners_by_hand() {
        let cosine = |warmup_steps, total_steps| Schedule::WarmupCosine {
            warmup_steps,
            total_steps,
            final_fraction: 0.2,
        };
        let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-12, "{found}");
        close(Schedule::Constant.factor(1_000_000), 1.0);
        close(cosine(3, 13).factor(0), 0.25);
        close(cosine(3, 13).factor(3), 1.0);
        close(cosine(3, 13).factor(8), 0.6);
        close(cosine(3, 13).factor(13), 0.2);
        close(cosine(3, 13).factor(u64::MAX), 0.2);
        close(cosine(0, 10).factor(0), 1.0);
        close(cosine(5, 5).factor(5), 0.2);
        close(cosine(5, 2).factor(4), 5.0 / 6.0);
        close(cosine(0, 0).factor(0), 0.2);
    }

    #[test]
    fn survives_a_configuration_file() {
        for schedule in [
            Schedule::Constant,
            Schedule::WarmupCosine { warmup_steps: 1, total_steps: 9, final_fraction: 0.1 },
            Schedule::Cyclic(Cycle { momentum: None, ..Cycle::new(CycleShape::ExpRange, 4) }),
            Schedule::OneCycle(OneCycle::new(100)),
        ] {
            let text = toml::to_string(&schedule).unwrap();
            assert_eq!(toml::from_str::<Schedule>(&text).unwrap(), schedule, "{text}");
        }
    }

    #[test]
    fn impossible_settings_are_named_and_still_answered() {
        let cycle = Cycle::new(CycleShape::Triangular, 4);
        let once = OneCycle::new(9);
        let momentum = |low, high| Some(MomentumCycle { low, high, ..MomentumCycle::SMITH });
        for (schedule, word) in [
            (Schedule::Step { every: 0, gamma: 0.5 }, "every"),
            (Schedule::Step { every: 1, gamma: f64::NAN }, "gamma"),
            (Schedule::CosineRestarts { first_steps: 0, longer: 1, final_fraction: 0.0 }, "first"),
            (Schedule::CosineRestarts { first_steps: 1, longer: 0, final_fraction: 0.0 }, "longer"),
            (Schedule::CosineRestarts { first_steps: 1, longer: 1, final_fraction: 2.0 }, "final"),
            (Schedule::Cyclic(Cycle { steps_up: 0, ..cycle }), "steps_up"),
            (Schedule::Cyclic(Cycle { steps_down: 0, ..cycle }), "steps_down"),
            (Schedule::Cyclic(Cycle { low: 2.0, ..cycle }), "low"),
            (Schedule::Cyclic(Cycle { gamma: 1.5, ..cycle }), "gamma"),
            (Schedule::Cyclic(Cycle { momentum: momentum(0.9, 1.0), ..cycle }), "high momentum"),
            (Schedule::OneCycle(OneCycle { momentum: momentum(0.9, 0.8), ..once }), "low momentum"),
            (Schedule::OneCycle(OneCycle { total_steps: 0, ..once }), "total_steps"),
            (Schedule::OneCycle(OneCycle { up: -0.1, ..once }), "up"),
            (Schedule::OneCycle(OneCycle { start_divisor: 0.0, ..once }), "start_divisor"),
        ] {
            let error = schedule.validate().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            for step in [0, 1, u64::MAX] {
                let _ = (schedule.factor(step), schedule.momentum(step));
            }
        }
    }
}
