//! Records the output of every layer in a forward pass, by name, for comparison with PyTorch.
//!
//! Each layer that has parameters (`Conv2d`, `BatchNorm`, `Linear`) reports its output under its
//! state-dict prefix, like a forward hook in PyTorch. Without an active [`Trace`] on the thread this
//! costs one check of a thread-local variable.

use std::cell::RefCell;

use tch::Tensor;

/// The output of one layer.
#[derive(Debug)]
pub struct Output {
    /// The layer's state-dict prefix, for example `layer14.seq_list.0.1_conv`.
    pub layer: String,
    /// What it returned, without its graph.
    pub tensor: Tensor,
}

thread_local! {
    static ACTIVE: RefCell<Option<Vec<Output>>> = const { RefCell::new(None) };
}

/// Records the layers that run on this thread from [`Trace::start`] to [`Trace::finish`].
///
/// Traces can be nested: while an inner one is active, the outer one records nothing. It resumes when
/// the inner one is dropped, also in a panic.
#[derive(Debug)]
pub struct Trace {
    outer: Option<Vec<Output>>,
}

impl Trace {
    /// Starts recording.
    pub fn start() -> Self {
        Self { outer: ACTIVE.with(|active| active.replace(Some(Vec::new()))) }
    }

    /// The recorded outputs, in order of execution.
    pub fn finish(self) -> Vec<Output> {
        ACTIVE.with(|active| active.take()).unwrap_or_default()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        ACTIVE.with(|active| active.replace(self.outer.take()));
    }
}

/// Whether a trace is active on this thread.
pub(super) fn is_active() -> bool {
    ACTIVE.with(|active| active.borrow().is_some())
}

/// Reports the output of `layer` to the active trace, if any; returns it.
pub(super) fn report(layer: &str, output: Tensor) -> Tensor {
    ACTIVE.with(|active| {
        if let Some(outputs) = &mut *active.borrow_mut() {
            outputs.push(Output { layer: layer.to_owned(), tensor: output.detach() });
        }
    });
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::layers::{BatchNorm, Conv2d, ConvSpec, Linear, Mode};
    use crate::models::params::{Params, Scope};
    use tch::{Device, Kind};

    fn net() -> impl Fn() {
        let build = |root: &Scope| {
            let conv = Conv2d::new(&root.sub("a").sub("0_conv"), ConvSpec::new(3, 2, 1));
            (conv, BatchNorm::new(&root.sub("n"), 2), Linear::new(&root.sub("fc"), 2, 4))
        };
        let ((conv, norm, linear), _) = Params::collect(Device::Cpu, build);
        move || {
            let xs = Tensor::ones([2, 3, 1, 1], (Kind::Float, Device::Cpu));
            let xs = norm.forward(&conv.forward(&xs), Mode::EVAL).flatten(1, -1);
            let _ = linear.forward(&xs);
        }
    }

    fn recorded(trace: Trace) -> Vec<(String, Vec<i64>)> {
        trace.finish().into_iter().map(|output| (output.layer, output.tensor.size())).collect()
    }

    #[test]
    fn layers_report_under_their_keys_in_the_order_they_run() {
        let run = net();
        run(); // no active trace
        let trace = Trace::start();
        run();
        let expected = [
            ("a.0_conv".to_owned(), vec![2, 2, 1, 1]),
            ("n".to_owned(), vec![2, 2, 1, 1]),
            ("fc".to_owned(), vec![2, 4]),
        ];
        assert_eq!(recorded(trace), expected);
        assert!(ACTIVE.with(|active| active.borrow().is_none()));
    }

    #[test]
    fn traces_nest_and_survive_a_panic() {
        let run = net();
        let outer = Trace::start();
        run();
        let inner = Trace::start();
        run();
        assert_eq!(recorded(inner).len(), 3);
        let panicked = std::panic::catch_unwind(|| {
            let _inner = Trace::start();
            panic!("in the middle of a pass");
        });
        assert!(panicked.is_err());
        run();
        assert_eq!(recorded(outer).len(), 6);
    }
}
