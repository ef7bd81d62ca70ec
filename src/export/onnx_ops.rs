//! Translation of PyTorch's operations to ONNX, one arm each.
//!
//! Operations and arguments without equivalent are errors that name them.

use std::collections::HashMap;

use super::graph::{Argument, Node};
use crate::weights::onnx_file::{AttributeProto, NodeProto, TensorProto};
use crate::{Error, Result};

/// A graph under construction.
#[derive(Debug, Default)]
pub struct Builder {
    /// Operations so far.
    pub operations: Vec<NodeProto>,
    /// Constants besides the model's tensors.
    pub constants: Vec<TensorProto>,
    /// Keys of the model's tensors in use.
    pub tensors: Vec<String>,
    names: HashMap<u64, String>,
}

impl Builder {
    /// Sets the name of a value; others are named after their operation.
    pub fn name(&mut self, value: u64, name: &str) {
        self.names.insert(value, name.to_owned());
    }

    /// Adds an operation of PyTorch.
    ///
    /// # Errors
    /// It has no equivalent.
    pub fn add(&mut self, node: &Node) -> Result<()> {
        match node.kind.as_str() {
            "aten::conv2d" | "aten::_convolution" => {
                let general = node.kind == "aten::_convolution";
                if general {
                    node.demand(6, 0)?; // not transposed
                }
                let attributes = vec![
                    AttributeProto::ints("strides", &node.pair(3)?),
                    pads(node.pair(4)?),
                    AttributeProto::ints("dilations", &node.pair(5)?),
                    AttributeProto::int("group", node.int(if general { 8 } else { 6 })?),
                ];
                self.operation(node, "Conv", 0..3, attributes)
            }
            "aten::batch_norm" => {
                node.demand(5, 0)?; // not training
                let epsilon = AttributeProto::float("epsilon", node.float(7)?);
                self.operation(node, "BatchNormalization", 0..5, vec![epsilon])
            }
            "aten::linear" => {
                self.operation(node, "Gemm", 0..3, vec![AttributeProto::int("transB", 1)])
            }
            "aten::max_pool2d" => {
                node.demand(5, 0)?; // no ceil_mode
                let mut attributes = window(node)?;
                attributes.push(AttributeProto::ints("dilations", &node.pair(4)?));
                self.operation(node, "MaxPool", 0..1, attributes)
            }
            "aten::avg_pool2d" => {
                node.demand(4, 0)?; // no ceil_mode
                if !matches!(node.at(6), Argument::None) {
                    return Err(node.unsupported(6)); // no other divisor
                }
                let mut attributes = window(node)?;
                attributes.push(AttributeProto::int("count_include_pad", node.int(5)?));
                self.operation(node, "AveragePool", 0..1, attributes)
            }
            "aten::adaptive_avg_pool2d" => match node.pair(1)? {
                [1, 1] => self.operation(node, "GlobalAveragePool", 0..1, vec![]),
                _ => Err(node.unsupported(1)),
            },
            "aten::flatten" => {
                node.demand(2, -1)?;
                node.demand(1, 1)?; // ONNX's Flatten makes two dimensions of any number
                self.operation(node, "Flatten", 0..1, vec![AttributeProto::int("axis", 1)])
            }
            "aten::cat" => {
                let Argument::List(parts) = node.at(0) else { return Err(node.unsupported(0)) };
                let parts = parts.iter().map(|part| self.tensor(node, 0, part));
                let parts = parts.collect::<Result<_>>()?;
                self.push(node, "Concat", parts, vec![AttributeProto::int("axis", node.int(1)?)])
            }
            "aten::relu" => self.operation(node, "Relu", 0..1, vec![]),
            "aten::prelu" => {
                // ONNX aligns the slopes, one per channel, with the last dimension.
                let slopes = self.tensor(node, 1, node.at(1))?;
                let column = format!("{slopes}.column");
                let axes = self.integers(&[1, 2]);
                self.operations.push(NodeProto {
                    input: vec![slopes, axes],
                    name: column.clone(),
                    output: vec![column.clone()],
                    op_type: "Unsqueeze".into(),
                    attribute: vec![],
                });
                let inputs = vec![self.tensor(node, 0, node.at(0))?, column];
                self.push(node, "PRelu", inputs, vec![])
            }
            "aten::sqrt" => self.operation(node, "Sqrt", 0..1, vec![]),
            "aten::mul" => self.operation(node, "Mul", 0..2, vec![]),
            "aten::div" => self.operation(node, "Div", 0..2, vec![]),
            "aten::pow" => self.operation(node, "Pow", 0..2, vec![]),
            "aten::clamp_min" => self.operation(node, "Max", 0..2, vec![]),
            "aten::add" | "aten::sub" => {
                node.demand(2, 1)?; // the second is not scaled
                let kind = if node.kind == "aten::add" { "Add" } else { "Sub" };
                self.operation(node, kind, 0..2, vec![])
            }
            "aten::square" => {
                let of = self.tensor(node, 0, node.at(0))?;
                self.push(node, "Mul", vec![of.clone(), of], vec![])
            }
            "aten::sum" => self.reduction(node, "ReduceSum", 1),
            "aten::norm" => {
                node.demand(1, 2)?; // the Euclidean one
                self.reduction(node, "ReduceL2", 2)
            }
            "aten::constant_pad_nd" => {
                // PyTorch starts with the last dimension: begin and end of each.
                let sides = node.ints(1)?;
                let (starts, ends): (Vec<i64>, Vec<i64>) =
                    sides.chunks_exact(2).map(|side| (side[0], side[1])).unzip();
                let axes: Vec<i64> = (1..=starts.len() as i64).map(|at| -at).collect();
                let inputs = vec![
                    self.tensor(node, 0, node.at(0))?,
                    self.integers(&[starts, ends].concat()),
                    self.scalar(node.float(2)?),
                    self.integers(&axes),
                ];
                self.push(node, "Pad", inputs, vec![])
            }
            "aten::dropout" => {
                node.demand(2, 0)?; // not training
                self.rename(node)
            }
            kind => Err(Error::Config(format!(
                "{kind} has no counterpart in the ONNX writer; export TorchScript instead"
            ))),
        }
    }

    /// Adds an operation with the arguments of `taken`, up to the first omitted one.
    fn operation(
        &mut self,
        node: &Node,
        kind: &'static str,
        taken: std::ops::Range<usize>,
        attributes: Vec<AttributeProto>,
    ) -> Result<()> {
        let mut inputs = Vec::new();
        for index in taken {
            // Only the bias can be omitted, which is last.
            if matches!((kind, index, node.at(index)), ("Conv" | "Gemm", 2, Argument::None)) {
                break;
            }
            inputs.push(self.tensor(node, index, node.at(index))?);
        }
        self.push(node, kind, inputs, attributes)
    }

    /// A reduction over the dimensions of argument `dims`; the next argument is `keepdim`.
    fn reduction(&mut self, node: &Node, kind: &'static str, dims: usize) -> Result<()> {
        let inputs = vec![self.tensor(node, 0, node.at(0))?, self.integers(&node.ints(dims)?)];
        self.push(node, kind, inputs, vec![AttributeProto::int("keepdims", node.int(dims + 1)?)])
    }

    fn push(
        &mut self,
        node: &Node,
        kind: &'static str,
        inputs: Vec<String>,
        attributes: Vec<AttributeProto>,
    ) -> Result<()> {
        let [value] = node.outputs[..] else {
            let text = format!("{} makes {} values, not one", node.kind, node.outputs.len());
            return Err(Error::Config(text));
        };
        let number = self.operations.len();
        let output = self.names.entry(value).or_insert_with(|| format!("{kind}_{number}")).clone();
        self.operations.push(NodeProto {
            input: inputs,
            name: output.clone(),
            output: vec![output],
            op_type: kind.into(),
            attribute: attributes,
        });
        Ok(())
    }

    /// An operation that returns its input.
    fn rename(&mut self, node: &Node) -> Result<()> {
        let [value] = node.outputs[..] else { return Err(node.unsupported(0)) };
        if self.names.contains_key(&value) {
            return self.operation(node, "Identity", 0..1, vec![]); // the name is promised
        }
        let name = self.tensor(node, 0, node.at(0))?;
        self.names.insert(value, name);
        Ok(())
    }

    /// The name of an argument as a tensor.
    fn tensor(&mut self, node: &Node, index: usize, argument: &Argument) -> Result<String> {
        match argument {
            Argument::Value(value) => {
                self.names.get(value).cloned().ok_or_else(|| node.unsupported(index))
            }
            Argument::Attribute(key) => {
                if !self.tensors.contains(key) {
                    self.tensors.push(key.clone());
                }
                Ok(key.clone())
            }
            Argument::Int(value) => Ok(self.scalar(*value as f64)),
            Argument::Float(value) => Ok(self.scalar(*value)),
            _ => Err(node.unsupported(index)),
        }
    }

    fn scalar(&mut self, value: f64) -> String {
        let name = format!("scalar({value})");
        self.constant(TensorProto::floats(name, Vec::new(), &[value as f32]))
    }

    fn integers(&mut self, list: &[i64]) -> String {
        self.constant(TensorProto::ints(format!("integers({list:?})"), list))
    }

    /// A constant, shared by all operations that use it.
    fn constant(&mut self, tensor: TensorProto) -> String {
        let name = tensor.name.clone();
        if !self.constants.iter().any(|constant| constant.name == name) {
            self.constants.push(tensor);
        }
        name
    }
}

/// Padding of each side, in ONNX's order: all begins, then all ends.
fn pads([height, width]: [i64; 2]) -> AttributeProto {
    AttributeProto::ints("pads", &[height, width, height, width])
}

/// Kernel, stride and padding of a pooling operation.
fn window(node: &Node) -> Result<Vec<AttributeProto>> {
    Ok(vec![
        AttributeProto::ints("kernel_shape", &node.pair(1)?),
        AttributeProto::ints("strides", &node.pair(2)?),
        pads(node.pair(3)?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(node: &str) -> Result<Builder> {
        let node: Node = serde_json::from_str(node).unwrap();
        let mut builder = Builder::default();
        builder.name(0, "x");
        builder.add(&node).map(|()| builder)
    }

    #[test]
    fn what_has_no_counterpart_is_named() {
        for (node, words) in [
            (r#"{"kind":"aten::gelu","inputs":[{"value":0}],"outputs":[1]}"#, "aten::gelu"),
            (
                r#"{"kind":"aten::add","inputs":[{"value":0},{"value":0},{"int":2}],"outputs":[1]}"#,
                "aten::add with Int(2) as argument 2",
            ),
            (
                r#"{"kind":"aten::adaptive_avg_pool2d","inputs":[{"value":0},{"list":[{"int":7}]}],
                    "outputs":[1]}"#,
                "aten::adaptive_avg_pool2d",
            ),
            (r#"{"kind":"aten::relu","inputs":[{"value":9}],"outputs":[1]}"#, "aten::relu"),
            (r#"{"kind":"aten::relu","inputs":[],"outputs":[1]}"#, "aten::relu"),
            (r#"{"kind":"aten::relu","inputs":[{"value":0}],"outputs":[]}"#, "aten::relu"),
        ] {
            let error = add(node).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn padding_begins_with_the_last_dimension() {
        let builder = add(r#"{"kind":"aten::constant_pad_nd","inputs":[{"value":0},
            {"list":[{"int":1},{"int":2},{"int":3},{"int":4}]},{"int":0}],"outputs":[1]}"#);
        let inputs = &builder.unwrap().operations[0].input;
        assert_eq!(inputs[1..], ["integers([1, 3, 2, 4])", "scalar(0)", "integers([-1, -2])"]);
    }

    #[test]
    fn dropout_disappears_and_a_constant_is_written_once() {
        let mut builder =
            add(r#"{"kind":"aten::dropout","inputs":[{"value":0},{"float":0.6},{"int":0}],
                    "outputs":[1]}"#)
            .unwrap();
        assert!(builder.operations.is_empty());
        for output in [2, 3] {
            let node = format!(
                r#"{{"kind":"aten::mul","inputs":[{{"value":1}},{{"float":0.5}}],"outputs":[{output}]}}"#
            );
            builder.add(&serde_json::from_str(&node).unwrap()).unwrap();
        }
        assert_eq!(builder.operations[1].input, ["x", "scalar(0.5)"]);
        assert_eq!(builder.constants.len(), 1);
    }
}
