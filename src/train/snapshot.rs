//! Everything that trains, as a checkpoint holds it.

use std::collections::BTreeMap;

use tch::{Device, Tensor};

use super::checkpoint::part;
use super::named::{copy_all, prefixed};
use super::step::Stepper;
use super::task::Task;
use crate::{Error, Result};

/// The parts of a snapshot.
const TASK: &str = "task";
const OPTIMIZER: &str = "optimizer";
const SCALER: &str = "scaler";

/// Everything that trains, on the CPU, by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Copies everything that trains.
pub fn snapshot(task: &dyn Task, stepper: &Stepper) -> Tensors {
    let live = prefixed(TASK, on_cpu(task.tensors(), true));
    // These are copies already.
    let optimizer = prefixed(OPTIMIZER, on_cpu(stepper.optimizer.state(), false));
    let scaler = prefixed(SCALER, on_cpu(stepper.scaler.state(), false));
    live.chain(optimizer).chain(scaler).collect()
}

/// The tensors on the CPU, as copies if asked.
pub fn on_cpu(tensors: Vec<(String, Tensor)>, copy: bool) -> Vec<(String, Tensor)> {
    let on_cpu = |tensor: Tensor| {
        let is_there = tensor.device() == Device::Cpu;
        let tensor = tensor.detach().to_device(Device::Cpu);
        if copy && is_there { tensor.copy() } else { tensor }
    };
    tensors.into_iter().map(|(name, tensor)| (name, on_cpu(tensor))).collect()
}

/// Goes on with what [`snapshot`] gave.
///
/// # Errors
/// Lists the tensors that do not fit.
pub fn load(task: &dyn Task, stepper: &mut Stepper, tensors: &Tensors) -> Result<()> {
    copy_all(&part(tensors, TASK), &task.tensors()).map_err(|wrong| {
        let wrong = wrong.join("\n  ");
        Error::Config(format!("the checkpoint does not fit:\n  {wrong}"))
    })?;
    stepper.optimizer.load_state(&part(tensors, OPTIMIZER))?;
    stepper.scaler.load_state(&part(tensors, SCALER))
}
