//! OpenFace nn4.small2, a small version of FaceNet's NN4 inception network (Amos et al., 2016).
//!
//! Input `[N, 3, 96, 96]` RGB in [0, 1], output `[N, 128]`, L2-normalised, 3,733,968 parameters. The
//! keys are those of the PyTorch port (`layer1.weight`, `layer14.seq_list.0.1_conv.weight`, …). The
//! port detaches the gradient at its LRN layers; here it reaches `layer1`.

use tch::{Device, Tensor};

use super::layers::{
    BatchNorm, Conv2d, ConvNormRelu, ConvSpec, CrossMapLrn, Linear, Mode, Window, avg_pool,
    l2_pool, max_pool, unit_rows,
};
use super::params::Scope;

/// Input size.
pub const INPUT: i64 = 96;
/// Embedding size.
pub const EMBEDDING: i64 = 128;
/// Channels between the last inception block and the linear layer.
const FEATURES: i64 = 736;

/// An inception block, as a row of a table.
struct InceptionConfig {
    name: &'static str,
    inputs: i64,
    /// Branches 1x1 → kxk: (kernel, reduced channels, output channels).
    towers: &'static [(i64, i64, i64)],
    /// Stride of the kxk convolutions.
    stride: i64,
    pool: Pool,
    /// Channels of the 1x1 convolution after the pool; `None` passes the pooled input on.
    pool_project: Option<i64>,
    /// Channels of the 1x1 branch, if any.
    project: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
enum Pool {
    Max,
    L2,
}

impl Pool {
    /// Both reduce the map (stride 2 or 3); the block pads it with zeros, as in Torch7's `DepthConcat`,
    /// which the published weights expect.
    fn forward(self, xs: &Tensor) -> Tensor {
        match self {
            Self::Max => max_pool(xs, Window::new(3, 2)),
            Self::L2 => l2_pool(xs, 3, 3),
        }
    }
}

#[rustfmt::skip]
const BLOCKS: [InceptionConfig; 7] = [
    InceptionConfig { name: "layer14", inputs: 192, towers: &[(3, 96, 128), (5, 16, 32)], stride: 1,
           pool: Pool::Max, pool_project: Some(32), project: Some(64) },
    InceptionConfig { name: "layer15", inputs: 256, towers: &[(3, 96, 128), (5, 32, 64)], stride: 1,
           pool: Pool::L2, pool_project: Some(64), project: Some(64) },
    InceptionConfig { name: "layer16", inputs: 320, towers: &[(3, 128, 256), (5, 32, 64)], stride: 2,
           pool: Pool::Max, pool_project: None, project: None },
    InceptionConfig { name: "layer17", inputs: 640, towers: &[(3, 96, 192), (5, 32, 64)], stride: 1,
           pool: Pool::L2, pool_project: Some(128), project: Some(256) },
    InceptionConfig { name: "layer18", inputs: 640, towers: &[(3, 160, 256), (5, 64, 128)], stride: 2,
           pool: Pool::Max, pool_project: None, project: None },
    InceptionConfig { name: "layer19", inputs: 1024, towers: &[(3, 96, 384)], stride: 1,
           pool: Pool::L2, pool_project: Some(96), project: Some(256) },
    InceptionConfig { name: "layer21", inputs: 736, towers: &[(3, 96, 384)], stride: 1,
           pool: Pool::Max, pool_project: Some(96), project: Some(256) },
];

/// Convolution `conv` with `same` padding, batch normalisation `norm`, ReLU.
fn unit(at: &Scope, [conv, norm]: [String; 2], spec: ConvSpec) -> ConvNormRelu {
    let outputs = spec.outputs();
    let conv = Conv2d::new(&at.sub(conv), spec.same());
    ConvNormRelu::of(conv, Some(BatchNorm::new(&at.sub(norm), outputs)))
}

#[derive(Debug)]
struct Inception {
    towers: Vec<[ConvNormRelu; 2]>,
    pool: Pool,
    pool_project: Option<ConvNormRelu>,
    project: Option<ConvNormRelu>,
}

impl Inception {
    fn new(root: &Scope, plan: &InceptionConfig) -> Self {
        let list = root.sub(plan.name).sub("seq_list");
        // `first` is the number in the port's layer names: 1_conv 2_bn 3_relu 4_conv 5_bn 6_relu.
        let block = |at: &Scope, first: i64, inputs, outputs, kernel, stride| {
            let names = [format!("{first}_conv"), format!("{}_bn", first + 1)];
            unit(at, names, ConvSpec::new(inputs, outputs, kernel).stride(stride))
        };
        let towers: Vec<_> = plan
            .towers
            .iter()
            .enumerate()
            .map(|(i, &(kernel, reduce, outputs))| {
                let at = list.sub(i);
                [
                    block(&at, 1, plan.inputs, reduce, 1, 1),
                    block(&at, 4, reduce, outputs, kernel, plan.stride),
                ]
            })
            .collect();
        let next = towers.len();
        let pool_project =
            plan.pool_project.map(|outputs| block(&list.sub(next), 2, plan.inputs, outputs, 1, 1));
        let project =
            plan.project.map(|outputs| block(&list.sub(next + 1), 1, plan.inputs, outputs, 1, 1));
        Self { towers, pool: plan.pool, pool_project, project }
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Tensor {
        let mut branches: Vec<Tensor> = self
            .towers
            .iter()
            .map(|[reduce, conv]| conv.forward(&reduce.forward(xs, mode), mode))
            .collect();
        let pooled = self.pool.forward(xs);
        branches.push(match &self.pool_project {
            Some(project) => project.forward(&pooled, mode),
            None => pooled,
        });
        if let Some(project) = &self.project {
            branches.push(project.forward(xs, mode));
        }
        let height = branches.iter().map(|b| b.size()[2]).max().unwrap_or(0);
        let width = branches.iter().map(|b| b.size()[3]).max().unwrap_or(0);
        let padded: Vec<_> = branches.into_iter().map(|b| pad_centred(b, height, width)).collect();
        Tensor::cat(&padded, 1)
    }
}

/// Zero-pads the map to `height` x `width`, with the odd row and column at the end.
fn pad_centred(xs: Tensor, height: i64, width: i64) -> Tensor {
    let size = xs.size();
    let (down, right) = (height - size[2], width - size[3]);
    if down == 0 && right == 0 {
        return xs;
    }
    let (top, left) = (down / 2, right / 2);
    xs.constant_pad_nd([left, right - left, top, down - top])
}

/// The network.
#[derive(Debug)]
pub struct OpenFace {
    stem: [ConvNormRelu; 3],
    lrn: [CrossMapLrn; 2],
    blocks: Vec<Inception>,
    embed: Linear,
}

impl OpenFace {
    /// Registers all layers under `root`, with PyTorch's default initialisation.
    pub fn new(root: &Scope, device: Device) -> Self {
        let block = |conv: i64, inputs, outputs, kernel, stride| {
            let names = [format!("layer{conv}"), format!("layer{}", conv + 1)];
            unit(root, names, ConvSpec::new(inputs, outputs, kernel).stride(stride))
        };
        Self {
            stem: [block(1, 3, 64, 7, 2), block(6, 64, 64, 1, 1), block(9, 64, 192, 3, 1)],
            lrn: [
                CrossMapLrn::new(device, 64, 5, 1e-4, 0.75),
                CrossMapLrn::new(device, 192, 5, 1e-4, 0.75),
            ],
            blocks: BLOCKS.iter().map(|plan| Inception::new(root, plan)).collect(),
            embed: Linear::new(&root.sub("layer25"), FEATURES, EMBEDDING),
        }
    }
}

impl super::Trunk for OpenFace {
    fn stages(&self) -> Vec<Vec<String>> {
        let stem = [["layer1", "layer2"], ["layer6", "layer7"], ["layer9", "layer10"]];
        let stem = stem.map(|blocks| blocks.map(String::from).to_vec());
        let blocks = BLOCKS.iter().map(|plan| plan.name).chain(["layer25"]);
        stem.into_iter().chain(blocks.map(|name| vec![name.into()])).collect()
    }

    fn run(&self, stage: usize, xs: &Tensor, mode: Mode) -> Tensor {
        let pool = |xs: &Tensor| max_pool(xs, Window::new(3, 2).padding(1));
        match (stage, stage.checked_sub(self.stem.len())) {
            (0, _) => self.lrn[0].forward(&pool(&self.stem[0].forward(xs, mode))), // [N, 64, 24, 24]
            (1, _) => self.stem[1].forward(xs, mode),
            (2, _) => pool(&self.lrn[1].forward(&self.stem[2].forward(xs, mode))), // [N, 192, 12, 12]
            (_, Some(block)) if block < self.blocks.len() => self.blocks[block].forward(xs, mode),
            // [N, 736, 3, 3] to [N, 128]
            _ => self.embed.forward(&avg_pool(xs, Window::new(3, 1)).flatten(1, -1)),
        }
    }

    fn features(&self, map: &Tensor) -> Tensor {
        map.shallow_clone()
    }

    fn unit(&self, features: &Tensor) -> Tensor {
        unit_rows(features)
    }
}
