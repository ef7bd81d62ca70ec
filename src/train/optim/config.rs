//! An optimiser's settings, checked before any work starts.

use serde::{Deserialize, Serialize};

use super::StepRates;
use crate::{Error, Result};

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Adam (Kingma and Ba 2015); weight decay is an L2 penalty
    #[default]
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019)
    #[cfg_attr(feature = "cli", value(name = "adamw"))]
    #[serde(rename = "adamw")]
    AdamW,
    /// Stochastic gradient descent with momentum
    Sgd,
}

/// An optimiser's settings. Adam ignores the momentum, SGD ignores the betas and `eps`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Which optimiser.
    pub kind: OptimizerKind,
    /// The base learning rate, which a schedule multiplies.
    pub lr: f64,
    /// L2 penalty (Adam, SGD) or decoupled decay (AdamW).
    pub weight_decay: f64,
    /// Decay of Adam's running mean of the gradient.
    pub beta1: f64,
    /// Decay of Adam's running mean of the squared gradient.
    pub beta2: f64,
    /// Added to Adam's denominator.
    pub eps: f64,
    /// SGD's momentum.
    pub momentum: f64,
    /// Nesterov's look-ahead for SGD.
    pub nesterov: bool,
}

impl OptimizerConfig {
    /// PyTorch's defaults: learning rate 0.001, betas 0.9 and 0.999, eps 1e-8, no weight decay but
    /// AdamW's 0.01. Only SGD's momentum differs: 0.9, because without it fine-tuning a deep
    /// network hardly moves (PyTorch says 0).
    pub fn new(kind: OptimizerKind) -> Self {
        let weight_decay = if kind == OptimizerKind::AdamW { 0.01 } else { 0.0 };
        Self {
            kind,
            lr: 1e-3,
            weight_decay,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            momentum: 0.9,
            nesterov: false,
        }
    }

    /// The settings of one step.
    pub(super) fn with(mut self, rates: StepRates) -> Result<Self> {
        if let Some(momentum) = rates.momentum {
            if self.kind == OptimizerKind::Sgd && self.momentum == 0.0 && momentum != 0.0 {
                return Err(Error::Config(
                    "the schedule sets a momentum, but SGD was made with a momentum of 0 and keeps \
                     none; give it any other, or a schedule that leaves the momentum alone"
                        .into(),
                ));
            }
            (self.beta1, self.momentum) = (momentum, momentum);
        }
        self.beta2 = rates.beta2.unwrap_or(self.beta2);
        Ok(self)
    }

    /// Checks what can be checked before any work starts.
    ///
    /// # Errors
    /// Names the setting, its value and what it may be.
    pub fn validate(&self) -> Result<()> {
        let from_zero = |value: f64| value.is_finite() && value >= 0.0;
        let below_one = |value: f64| (0.0..1.0).contains(&value);
        for (setting, value, fits, wanted) in [
            ("learning rate (--lr)", self.lr, from_zero(self.lr), "0 or more"),
            (
                "weight decay (--weight-decay)",
                self.weight_decay,
                from_zero(self.weight_decay),
                "0 or more",
            ),
            ("eps", self.eps, from_zero(self.eps), "0 or more"),
            ("beta1", self.beta1, below_one(self.beta1), "at least 0 and below 1"),
            ("beta2", self.beta2, below_one(self.beta2), "at least 0 and below 1"),
            ("momentum", self.momentum, from_zero(self.momentum), "0 or more"),
        ] {
            if !fits {
                return Err(Error::Config(format!(
                    "the {setting} is {value}; it must be {wanted}"
                )));
            }
        }
        if self.kind == OptimizerKind::Sgd && self.nesterov && self.momentum == 0.0 {
            return Err(Error::Config("nesterov needs a momentum above 0".into()));
        }
        Ok(())
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self::new(OptimizerKind::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_named() {
        let base = OptimizerConfig::new(OptimizerKind::Sgd);
        for (config, word) in [
            (OptimizerConfig { lr: -1.0, ..base }, "--lr"),
            (OptimizerConfig { lr: f64::NAN, ..base }, "--lr"),
            (OptimizerConfig { weight_decay: f64::INFINITY, ..base }, "--weight-decay"),
            (OptimizerConfig { beta2: 1.0, ..base }, "beta2"),
            (OptimizerConfig { nesterov: true, momentum: 0.0, ..base }, "nesterov"),
        ] {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    #[cfg(feature = "cli")]
    fn kinds_have_one_name_on_the_command_line_and_in_files() {
        use clap::ValueEnum;
        for kind in OptimizerKind::value_variants() {
            let flag = kind.to_possible_value().unwrap();
            assert_eq!(serde_json::to_value(kind).unwrap(), flag.get_name());
            OptimizerConfig::new(*kind).validate().unwrap();
        }
        assert_eq!(OptimizerConfig::new(OptimizerKind::AdamW).weight_decay, 0.01);
    }
}
