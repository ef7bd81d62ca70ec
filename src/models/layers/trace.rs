//! What every layer put out in a forward pass, by name: the other half of a comparison with PyTorch.
//!
//! Each layer that has parameters (`Conv2d`, `BatchNorm`, `Linear`) reports its output under its
//! state-dict prefix, as a forward hook on the module of that name would. Nobody listens unless a
//! [`Trace`] is alive on the thread; a report then costs one look at a thread-local variable.

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
    static LISTENER: RefCell<Option<Vec<Output>>> = const { RefCell::new(None) };
}

/// Listens, from [`Trace::start`] to [`Trace::finish`], to the layers that run on this thread.
///
/// Traces nest: an inner one hears its own part alone. One that is dropped, in a panic say, gives
/// the thread back to the outer one.
#[derive(Debug)]
pub struct Trace {
    outer: Option<Vec<Output>>,
}

impl Trace {
    /// Starts to listen.
    pub fn start() -> Self {
        Self { outer: LISTENER.with(|listener| listener.replace(Some(Vec::new()))) }
    }

    /// What was heard, in the order in which the layers ran.
    pub fn finish(self) -> Vec<Output> {
        LISTENER.with(|listener| listener.take()).unwrap_or_default()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        LISTENER.with(|listener| listener.replace(self.outer.take()));
    }
}

/// Whether somebody listens on this thread.
pub(super) fn is_heard() -> bool {
    LISTENER.with(|listener| listener.borrow().is_some())
}

/// Reports the output of `layer` to the active trace, if any; returns it.
pub(super) fn report(layer: &str, output: Tensor) -> Tensor {
    LISTENER.with(|listener| {
        if let Some(heard) = &mut *listener.borrow_mut() {
            heard.push(Output { layer: layer.to_owned(), tensor: output.detach() });
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

    fn heard(trace: Trace) -> Vec<(String, Vec<i64>)> {
        trace.finish().into_iter().map(|output| (output.layer, output.tensor.size())).collect()
    }

    #[test]
    fn layers_report_under_their_keys_in_the_order_they_run() {
        let run = net();
        run(); // nobody listens
        let trace = Trace::start();
        run();
        let expected = [
            ("a.0_conv".to_owned(), vec![2, 2, 1, 1]),
            ("n".to_owned(), vec![2, 2, 1, 1]),
            ("fc".to_owned(), vec![2, 4]),
        ];
        assert_eq!(heard(trace), expected);
        assert!(LISTENER.with(|listener| listener.borrow().is_none()));
    }

    #[test]
    fn traces_nest_and_survive_a_panic() {
        let run = net();
        let outer = Trace::start();
        run();
        let inner = Trace::start();
        run();
        assert_eq!(heard(inner).len(), 3);
        let panicked = std::panic::catch_unwind(|| {
            let _inner = Trace::start();
            panic!("in the middle of a pass");
        });
        assert!(panicked.is_err());
        run();
        assert_eq!(heard(outer).len(), 6);
    }
}
