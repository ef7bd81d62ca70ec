//! What may change from step to step.

/// The rates of one optimiser step; what is `None` stays as the optimiser's settings have it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRates {
    /// The learning rate.
    pub lr: f64,
    /// Adam's beta1, or SGD's momentum.
    pub momentum: Option<f64>,
    /// Adam's beta2; SGD ignores it.
    pub beta2: Option<f64>,
}

impl StepRates {
    /// This learning rate and otherwise the optimiser's settings.
    pub fn lr(lr: f64) -> Self {
        Self { lr, momentum: None, beta2: None }
    }
}
