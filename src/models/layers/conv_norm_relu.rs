//! What convolutional networks are made of: convolution, batch normalisation, ReLU.

use std::cell::{Cell, RefCell};

use tch::Tensor;

use super::{BatchNorm, Bias, Conv2d, ConvSpec, Mode, NormOptions, trace};
use crate::models::params::Scope;
use crate::native::fused::FusedConv;

thread_local! {
    static APART: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` layer by layer, as it would run with a graph: a pass without one whose result has to be,
/// to the last bit, that of a later pass with one.
pub fn layer_by_layer<T>(body: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            APART.set(self.0);
        }
    }
    let _restore = Restore(APART.replace(true));
    body()
}

/// Convolution, batch normalisation where there is one, and ReLU.
///
/// Layer by layer while the network trains. In evaluation mode, where nothing is to be differentiated
/// and maps have the channels of a pixel side by side, all of it is one pass over weights with the
/// normalisation folded in: the same function, with float32's rounding in another order.
#[derive(Debug)]
pub struct ConvNormRelu {
    conv: Conv2d,
    norm: Option<BatchNorm>,
    fused: RefCell<FusedConv>,
}

impl ConvNormRelu {
    /// Of layers that are registered already.
    pub fn of(conv: Conv2d, norm: Option<BatchNorm>) -> Self {
        Self { conv, norm, fused: RefCell::default() }
    }

    /// A convolution without a bias (`conv`) and batch normalisation with eps 0.001 (`bn`): the
    /// `BasicConv2d` of torchvision's Inception and of facenet-pytorch. The spec's bias is dropped.
    pub fn basic(at: &Scope, spec: ConvSpec) -> Self {
        let options = NormOptions { eps: 1e-3, ..NormOptions::default() };
        let conv = Conv2d::new(&at.sub("conv"), spec.bias(Bias::None));
        Self::of(conv, Some(BatchNorm::with(&at.sub("bn"), spec.outputs(), options)))
    }

    /// `[N, in, H, W]` to `[N, out, H', W']`.
    pub fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        if let Some(ys) = self.in_one_pass(xs, mode) {
            return ys;
        }
        let ys = self.conv.forward(xs);
        match &self.norm {
            Some(norm) => norm.forward_relu(&[&ys], mode),
            None => ys.relu(),
        }
    }

    /// None where it cannot be done, or where the layers are wanted one by one.
    fn in_one_pass(&self, xs: &Tensor, mode: Mode) -> Option<Tensor> {
        if mode != Mode::EVAL {
            // While the network trains, its folded weights are of no use.
            self.fused.try_borrow_mut().ok()?.clear();
            return None;
        }
        if trace::is_active() || APART.get() {
            return None;
        }
        let parts = self.conv.parts()?;
        let parts = self.norm.as_ref().map_or(parts, |norm| norm.behind(parts));
        // What fails there fails again layer by layer, where the error is libtorch's usual one.
        self.fused.try_borrow_mut().ok()?.run(xs, parts).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Params;
    use crate::native::{self, Half};
    use tch::{Device, Kind};

    fn map(seed: i64) -> Tensor {
        tch::manual_seed(seed);
        native::channels_last(&Tensor::randn([2, 6, 9, 7], (Kind::Float, Device::Cpu))).unwrap()
    }

    fn units() -> Vec<(ConvNormRelu, Params)> {
        let spec = ConvSpec::new(6, 10, 3).same();
        let rectangle = ConvSpec::rectangle(6, 10, [1, 5]).same().stride(2);
        let build: [&dyn Fn(&Scope) -> ConvNormRelu; 3] = [
            &|root| ConvNormRelu::basic(root, spec),
            &|root| ConvNormRelu::of(Conv2d::new(root, rectangle), None),
            &|root| {
                let norm = BatchNorm::new(&root.sub("bn"), 10);
                ConvNormRelu::of(Conv2d::new(root, spec), Some(norm))
            },
        ];
        let units = build.map(|build| Params::collect(Device::Cpu, build));
        for (_, params) in &units {
            for param in params.iter().filter(|param| param.tensor.kind() == Kind::Float) {
                // Statistics that matter, variances above zero.
                let values = Tensor::rand(param.tensor.size(), (Kind::Float, Device::Cpu)) + 0.5;
                tch::no_grad(|| param.tensor.shallow_clone().copy_(&values));
            }
        }
        units.into()
    }

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[]) / b.abs().max().double_value(&[])
    }

    #[test]
    fn one_pass_agrees_with_three_and_follows_every_change() {
        tch::manual_seed(1);
        for (unit, params) in units() {
            for round in 0..6 {
                let xs = map(round);
                let layers = unit.forward(&xs, Mode::EVAL); // a graph is wanted: layer by layer
                assert!(layers.requires_grad());
                let fused = tch::no_grad(|| unit.in_one_pass(&xs, Mode::EVAL)).unwrap();
                assert_eq!((fused.size(), fused.kind()), (layers.size(), Kind::Float));
                assert!(apart(&fused, &layers) < 3e-6, "{}", apart(&fused, &layers));
                change(round, &unit, &params);
            }
        }
    }

    /// All that ever writes to a network: optimisers, a loader, batch statistics.
    fn change(round: i64, unit: &ConvNormRelu, params: &Params) {
        use crate::native::{AdamStep, SgdStep, fused_adam_step, fused_sgd_step};
        let all: Vec<_> = params.iter().collect();
        let weights: Vec<&Tensor> =
            all.iter().filter(|param| param.is_parameter).map(|param| &param.tensor).collect();
        let slopes: Vec<Tensor> = weights.iter().map(|weight| weight.ones_like()).collect();
        let slopes: Vec<&Tensor> = slopes.iter().collect();
        let zeros = || weights.iter().map(|weight| weight.zeros_like()).collect::<Vec<_>>();
        let (averages, squares) = (zeros(), zeros());
        let steps = |_: &&Tensor| Tensor::zeros([], (Kind::Float, Device::Cpu));
        let steps: Vec<Tensor> = weights.iter().map(steps).collect();
        let sgd = SgdStep { lr: 0.2, momentum: 0.0, weight_decay: 0.0, nesterov: false };
        let adam = |decoupled| AdamStep {
            lr: 0.2,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            eps: 1e-8,
            decoupled,
        };
        let step = |decoupled| {
            let [averages, squares, steps] =
                [&averages, &squares, &steps].map(|list| list.iter().collect::<Vec<_>>());
            fused_adam_step(&weights, &slopes, &averages, &squares, &steps, adam(decoupled), None)
                .unwrap();
        };
        match round {
            0 => step(false),
            1 => step(true),
            2 => fused_sgd_step(&weights, &slopes, &[], sgd, None).unwrap(),
            3 => tch::no_grad(|| {
                weights.iter().for_each(|weight| weight.shallow_clone().copy_(&weight.flip([0])));
            }),
            // The statistics alone.
            _ => drop(unit.forward(&(map(9) * 3.0), Mode::TRAIN)),
        }
    }

    #[test]
    fn sixteen_bits_come_out_as_they_went_in() {
        if !native::convolves_bf16() {
            return;
        }
        for (unit, _) in units() {
            let xs = map(1);
            let half = xs.to_kind(Kind::BFloat16);
            let [wide, narrow] =
                [&xs, &half].map(|xs| tch::no_grad(|| unit.forward(xs, Mode::EVAL)));
            assert_eq!(narrow.kind(), Kind::BFloat16);
            let cast = || tch::no_grad(|| unit.in_one_pass(&xs, Mode::EVAL).unwrap());
            let cast = native::with_autocast(Device::Cpu, Half::BFloat16, cast);
            assert!(cast.equal(&narrow), "autocast");
            assert!(apart(&narrow.to_kind(Kind::Float), &wide) < 0.02);
        }
    }

    #[test]
    fn layers_run_one_by_one_where_that_is_wanted() {
        let (unit, _) = units().swap_remove(0);
        let xs = map(1);
        tch::no_grad(|| {
            assert!(unit.in_one_pass(&xs, Mode::EVAL).is_some());
            assert!(unit.in_one_pass(&xs, Mode::TRAIN).is_none(), "the batch's statistics");
            let tuning = Mode { dropout: true, batch_statistics: false };
            assert!(unit.in_one_pass(&xs, tuning).is_none(), "training");
            let apart = layer_by_layer(|| unit.in_one_pass(&xs, Mode::EVAL));
            assert!(apart.is_none(), "a graph comes later");
            assert!(unit.in_one_pass(&xs, Mode::EVAL).is_some());
            assert!(unit.in_one_pass(&xs.contiguous(), Mode::EVAL).is_none(), "PyTorch's layout");
            native::with_autocast(Device::Cpu, Half::Float16, || {
                assert!(unit.in_one_pass(&xs, Mode::EVAL).is_none(), "float16");
            });
            let trace = trace::Trace::start();
            assert!(unit.in_one_pass(&xs, Mode::EVAL).is_none(), "somebody listens");
            drop(trace);
        });
        assert!(unit.in_one_pass(&xs, Mode::EVAL).is_none(), "a gradient may be wanted");
    }

    #[test]
    fn broken_weights_give_broken_maps() {
        for (unit, params) in units() {
            let weight = &params.iter().next().unwrap().tensor;
            let _ = tch::no_grad(|| weight.get(2).fill_(f64::NAN));
            let ys = tch::no_grad(|| unit.in_one_pass(&map(1), Mode::EVAL)).unwrap();
            let broken = i64::try_from(ys.isnan().sum(Kind::Int64)).unwrap();
            assert_eq!(broken, ys.numel() as i64 / 10, "one of ten channels");
        }
    }
}
