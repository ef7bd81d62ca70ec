//! The named tensors of a network, in the order of PyTorch's `state_dict()`.
//!
//! tch's `VarStore` keeps no order, has no integer buffers (`num_batches_tracked`) and loads without a
//! report. Here each layer registers its tensors under PyTorch's keys, for readers, writers, optimisers
//! and `--freeze`.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// A named tensor of a network.
#[derive(Debug)]
pub struct Param {
    /// PyTorch's state-dict key, such as `layer14.seq_list.0.1_conv.weight`.
    pub name: String,
    /// The tensor; layers hold shallow clones, so that it is only changed in place.
    pub tensor: Tensor,
    /// A parameter (true) or a buffer such as a running mean (false).
    pub is_parameter: bool,
}

/// The tensors of a network, in order.
#[derive(Debug, Default)]
pub struct Params {
    entries: Vec<Param>,
    /// Of the batch normalisations, by their keys.
    epsilons: HashMap<String, f64>,
}

impl Params {
    /// Registers a network's tensors on `device`: `build` gets the root scope.
    pub fn collect<T>(device: Device, build: impl FnOnce(&Scope) -> T) -> (T, Self) {
        Self::register(device, true, build)
    }

    /// As [`collect`](Self::collect), with zeros in place of random weights: for a network whose weights
    /// are loaded next. libtorch's generator stays as it is.
    pub fn collect_unset<T>(device: Device, build: impl FnOnce(&Scope) -> T) -> (T, Self) {
        Self::register(device, false, build)
    }

    fn register<T>(device: Device, draws: bool, build: impl FnOnce(&Scope) -> T) -> (T, Self) {
        let book = RefCell::new(Self::default());
        let net = build(&Scope { book: &book, device, prefix: String::new(), draws });
        (net, book.into_inner())
    }

    /// Every tensor, in registration order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.entries.iter()
    }

    /// What the batch normalisation with this key adds to its variances.
    pub fn epsilon(&self, key: &str) -> Option<f64> {
        self.epsilons.get(key).copied()
    }

    /// Number of trainable parameters, frozen or not.
    pub fn parameter_count(&self) -> usize {
        self.entries.iter().filter(|p| p.is_parameter).map(|p| p.tensor.numel()).sum()
    }

    /// The parameters that require a gradient, with their names.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        self.entries
            .iter()
            .filter(|p| p.is_parameter && p.tensor.requires_grad())
            .map(|p| (p.name.clone(), p.tensor.shallow_clone()))
            .collect()
    }

    /// The parameters of `block`, in order.
    pub fn below(&self, block: &str) -> impl Iterator<Item = &Param> {
        self.entries.iter().filter(move |p| p.is_parameter && is_below(&p.name, block))
    }

    /// Freezes all parameters.
    pub fn freeze_all(&self) {
        for param in self.entries.iter().filter(|p| p.is_parameter) {
            let _ = param.tensor.set_requires_grad(false);
        }
    }

    /// Freezes the parameters whose key starts with one of `prefixes`, in whole components: `layer1`
    /// freezes `layer1.weight` but not `layer14.…`; `all` freezes everything. Returns the number of
    /// tensors frozen.
    ///
    /// # Errors
    /// A prefix matches nothing; names it and the existing blocks.
    pub fn freeze(&self, prefixes: &[String]) -> Result<usize> {
        let mut frozen = 0;
        for prefix in prefixes {
            let all = prefix == "all";
            let own = |param: &&Param| param.is_parameter && (all || is_below(&param.name, prefix));
            let matching: Vec<_> = self.entries.iter().filter(own).collect();
            if matching.is_empty() {
                return Err(Error::Config(format!(
                    "--freeze {prefix}: no parameter of the trunk starts with it; its blocks are {}",
                    self.blocks().join(", ")
                )));
            }
            for param in matching {
                let _ = param.tensor.set_requires_grad(false);
                frozen += 1;
            }
        }
        Ok(frozen)
    }

    /// The names for `--freeze`, in order: the first component of each key, or the first two if the
    /// first is only a container ([`CONTAINERS`]): `layer1`, `features.denseblock1`.
    pub fn blocks(&self) -> Vec<String> {
        let mut blocks: Vec<String> = Vec::new();
        for param in self.entries.iter().filter(|p| p.is_parameter) {
            let block = block_of(&param.name);
            if blocks.last().is_none_or(|last| last != block) {
                blocks.push(block.to_owned());
            }
        }
        blocks
    }

    /// All tensors by name, not copied.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        self.entries.iter().map(|p| (p.name.clone(), p.tensor.shallow_clone())).collect()
    }

    /// Deep copies of all tensors on the CPU, as `(name, tensor)`.
    pub fn snapshot(&self) -> Vec<(String, Tensor)> {
        tch::no_grad(|| {
            self.entries
                .iter()
                .map(|p| (p.name.clone(), p.tensor.detach().to_device(Device::Cpu).copy()))
                .collect()
        })
    }
}

/// First components that contain most of a trunk: `features` of torchvision's VGG and DenseNet, `blocks`
/// of dlib's network, `layers` of MobileFaceNet.
pub const CONTAINERS: [&str; 3] = ["features", "blocks", "layers"];

/// The block of a key; see [`Params::blocks`].
fn block_of(key: &str) -> &str {
    let in_container = CONTAINERS.iter().any(|name| is_below(key, name));
    let mut dots = key.match_indices('.').map(|(end, _)| end);
    let (first, second) = (dots.next(), dots.next());
    // IResNet's last layer is called `features`, too: it contains nothing but its tensors.
    let end = if in_container { second.or(first) } else { first };
    end.map_or(key, |end| &key[..end])
}

/// Whether a key starts with a prefix, in whole components.
pub fn is_below(name: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('.');
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A key prefix under which a layer registers its tensors.
#[derive(Debug)]
pub struct Scope<'a> {
    book: &'a RefCell<Params>,
    device: Device,
    prefix: String,
    /// Weights are drawn; zeros where they are not.
    draws: bool,
}

impl Scope<'_> {
    /// The prefix: `layer14.seq_list.0.1_conv`; empty at the root.
    pub fn path(&self) -> &str {
        &self.prefix
    }

    /// The scope one component deeper.
    pub fn sub(&self, name: impl std::fmt::Display) -> Self {
        Self { prefix: self.key(&name.to_string()), ..*self }
    }

    /// Registers a trainable parameter and returns the tensor for the layer.
    pub fn parameter(&self, name: &str, value: Tensor) -> Tensor {
        let tensor = value.to_device(self.device).set_requires_grad(true);
        self.register(name, tensor, true)
    }

    /// Registers a buffer: saved and loaded, not trained.
    pub fn buffer(&self, name: &str, value: Tensor) -> Tensor {
        self.register(name, value.to_device(self.device), false)
    }

    /// Notes what a batch normalisation adds to its variances.
    pub(super) fn epsilon(&self, epsilon: f64) {
        self.book.borrow_mut().epsilons.insert(self.prefix.clone(), epsilon);
    }

    fn register(&self, name: &str, tensor: Tensor, is_parameter: bool) -> Tensor {
        let param = Param { name: self.key(name), tensor: tensor.shallow_clone(), is_parameter };
        self.book.borrow_mut().entries.push(param);
        tensor
    }

    fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// U(-bound, bound), as in PyTorch's default initialisation.
    pub(super) fn uniform(&self, shape: &[i64], bound: f64) -> Tensor {
        let mut blank = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        if self.draws { blank.uniform_(-bound, bound) } else { blank }
    }

    /// N(0, deviation²).
    pub(super) fn normal(&self, shape: &[i64], deviation: f64) -> Tensor {
        let mut blank = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        if self.draws { blank.normal_(0.0, deviation) } else { blank }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_blocks() -> Params {
        let options = (Kind::Float, Device::Cpu);
        let ((), params) = Params::collect(Device::Cpu, |root| {
            let _ = root.sub("layer1").parameter("weight", Tensor::zeros([2, 3], options));
            let _ = root.sub("layer14").parameter("weight", Tensor::zeros([4], options));
            let _ =
                root.sub("layer14").buffer("steps", Tensor::zeros([1], (Kind::Int64, Device::Cpu)));
        });
        params
    }

    #[test]
    fn weights_that_are_loaded_next_are_not_drawn() {
        let sum = |root: &Scope| (root.uniform(&[9], 1.0) + root.normal(&[9], 1.0)).abs().sum(None);
        let (unset, _) = Params::collect_unset(Device::Cpu, |root| sum(&root.sub("layer1")));
        let (drawn, _) = Params::collect(Device::Cpu, |root| sum(&root.sub("layer1")));
        assert!(unset.double_value(&[]) == 0.0 && drawn.double_value(&[]) > 0.0);
    }

    #[test]
    fn a_block_is_the_first_component_or_the_second_of_a_container() {
        assert_eq!(block_of("layer14.seq_list.0.1_conv.weight"), "layer14");
        assert_eq!(
            block_of("features.denseblock1.denselayer1.norm1.weight"),
            "features.denseblock1"
        );
        assert_eq!(block_of("features.0.weight"), "features.0");
        assert_eq!(block_of("classifier.0.weight"), "classifier");
        assert_eq!(block_of("scale"), "scale");
        assert_eq!(block_of("features.bias"), "features");
        assert_eq!(block_of("layers.3.layers.0.layers.1.weight"), "layers.3");
    }

    #[test]
    fn freezing_stops_at_component_borders() {
        let params = two_blocks();
        assert_eq!(params.parameter_count(), 10);
        assert_eq!(params.freeze(&["layer1".into()]).unwrap(), 1);
        let left: Vec<_> = params.trainable().into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["layer14.weight"]);
    }

    #[test]
    fn an_unknown_prefix_is_named_with_the_blocks_there_are() {
        let error = two_blocks().freeze(&["layer9".into()]).unwrap_err().to_string();
        assert!(error.contains("--freeze layer9") && error.contains("layer1, layer14"), "{error}");
    }
}
