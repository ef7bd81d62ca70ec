//! Learning-rate schedules: pure functions of the step, so a resumed run needs no state for them.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

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
                final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + (PI * done).cos())
            }
        }
    }
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
        ] {
            let text = toml::to_string(&schedule).unwrap();
            assert_eq!(toml::from_str::<Schedule>(&text).unwrap(), schedule, "{text}");
        }
    }
}
