//! Lower the learning rate when a score stops getting better: PyTorch's `ReduceLROnPlateau`.

use serde::{Deserialize, Serialize};

use super::{impossible, positive};
use crate::Result;

/// Which scores are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Lower ones, such as a loss
    #[default]
    Lower,
    /// Higher ones, such as an accuracy
    Higher,
}

/// When to lower the learning rate, and by how much.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlateauConfig {
    /// Which scores are better.
    pub better: Better,
    /// What the learning rate is multiplied by, above 0 and below 1.
    pub factor: f64,
    /// How many scores in a row may be no better; the next one lowers the learning rate.
    pub patience: u64,
    /// By how much a score must be better than the best one to count.
    pub threshold: f64,
    /// Whether the threshold is a share of the best score (PyTorch's `rel`) or a difference (`abs`).
    pub relative: bool,
    /// Scores after a fall that are not counted as bad.
    pub cooldown: u64,
    /// The lowest factor, as a share of the base learning rate.
    pub lowest: f64,
}

impl Default for PlateauConfig {
    /// PyTorch's: lower is better, factor 0.1, patience 10, threshold 0.0001 of the best score.
    fn default() -> Self {
        Self {
            better: Better::Lower,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            relative: true,
            cooldown: 0,
            lowest: 0.0,
        }
    }
}

impl PlateauConfig {
    /// Checks what can be checked before any work starts.
    ///
    /// # Errors
    /// Names the setting, its value and what it may be.
    pub fn validate(&self) -> Result<()> {
        positive("factor", self.factor)?;
        if self.factor >= 1.0 {
            return Err(impossible("factor", self.factor, "below 1"));
        }
        for (setting, value) in [("threshold", self.threshold), ("lowest factor", self.lowest)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(impossible(setting, value, "0 or more"));
            }
        }
        Ok(())
    }

    fn is_better(&self, score: f64, best: f64) -> bool {
        let by = if self.relative { self.threshold * best } else { self.threshold };
        match self.better {
            Better::Lower => score < best - by,
            Better::Higher => score > best + by,
        }
    }
}

/// The factor on the learning rate and the state of the scores. Part of a checkpoint.
///
/// PyTorch skips falls of less than 1e-8 (its `eps`); here they happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plateau {
    config: PlateauConfig,
    factor: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best: Option<f64>,
    bad: u64,
    cooling: u64,
}

impl Plateau {
    /// A factor of 1 and no score yet.
    ///
    /// # Errors
    /// Names an impossible setting.
    pub fn new(config: PlateauConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config, factor: 1.0, best: None, bad: 0, cooling: 0 })
    }

    /// The factor on the base learning rate now.
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Takes the next score (one an epoch, usually) and returns the factor from here on. A score
    /// that is not a finite number is never better.
    pub fn observe(&mut self, score: f64) -> f64 {
        let better =
            score.is_finite() && self.best.is_none_or(|best| self.config.is_better(score, best));
        if better {
            (self.best, self.bad) = (Some(score), 0);
        } else {
            self.bad = self.bad.saturating_add(1);
        }
        if self.cooling > 0 {
            (self.cooling, self.bad) = (self.cooling - 1, 0);
        }
        if self.bad > self.config.patience {
            let lower = (self.factor * self.config.factor).max(self.config.lowest);
            self.factor = self.factor.min(lower);
            (self.cooling, self.bad) = (self.config.cooldown, 0);
        }
        self.factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_goes_on_where_it_was() {
        let config = PlateauConfig { patience: 1, cooldown: 2, ..PlateauConfig::default() };
        let mut straight = Plateau::new(config).unwrap();
        for (index, score) in [f64::NAN, 3.0, 2.0, 2.0, f64::INFINITY, 2.0, 2.0, 2.0, 2.0, 1.0]
            .into_iter()
            .enumerate()
        {
            let text = serde_json::to_string(&straight).unwrap();
            let mut resumed: Plateau = serde_json::from_str(&text).unwrap();
            let in_toml: Plateau = toml::from_str(&toml::to_string(&straight).unwrap()).unwrap();
            assert_eq!(in_toml, straight);
            assert_eq!(resumed.observe(score), straight.observe(score), "score {index}");
            assert_eq!(resumed, straight);
        }
        assert!((straight.factor() - 0.01).abs() < 1e-12, "{straight:?}");
    }

    #[test]
    fn impossible_settings_are_named() {
        let base = PlateauConfig::default();
        for (config, word) in [
            (PlateauConfig { factor: 1.0, ..base }, "factor"),
            (PlateauConfig { factor: f64::NAN, ..base }, "factor"),
            (PlateauConfig { threshold: -1.0, ..base }, "threshold"),
            (PlateauConfig { lowest: f64::INFINITY, ..base }, "lowest"),
        ] {
            let error = Plateau::new(config).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
