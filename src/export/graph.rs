//! A recorded network as a list of operations.

use serde::Deserialize;

use crate::{Error, Result};

/// The operations in execution order. Values are numbered.
#[derive(Debug, Deserialize)]
pub struct Graph {
    /// Input.
    pub input: u64,
    /// Outputs.
    pub outputs: Vec<u64>,
    /// Operations.
    pub nodes: Vec<Node>,
}

/// An operation.
#[derive(Debug, Deserialize)]
pub struct Node {
    /// PyTorch's name, such as `aten::relu`.
    pub kind: String,
    /// Arguments, in the order of PyTorch's schema.
    pub inputs: Vec<Argument>,
    /// Outputs.
    pub outputs: Vec<u64>,
}

/// An argument of an operation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Argument {
    /// The output of another operation.
    Value(u64),
    /// A tensor of the model, by its key.
    Attribute(String),
    /// An omitted optional argument.
    None,
    /// An integer or boolean.
    Int(i64),
    /// A float.
    Float(f64),
    /// A list of these.
    List(Vec<Argument>),
    /// Anything else, by the name of its type, for error messages.
    Other(#[allow(dead_code)] String),
}

impl Graph {
    /// Parses the output of [`Trace::describe`](crate::native::trace::Trace::describe).
    ///
    /// # Errors
    /// The text cannot be parsed.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::Config(format!("the recorded network cannot be read: {error}")))
    }
}

impl Node {
    /// The argument at `index`; `None` if there is none.
    pub fn at(&self, index: usize) -> &Argument {
        self.inputs.get(index).unwrap_or(&Argument::None)
    }

    /// An integer or boolean.
    ///
    /// # Errors
    /// The argument has another type.
    pub fn int(&self, index: usize) -> Result<i64> {
        match self.at(index) {
            Argument::Int(value) => Ok(*value),
            _ => Err(self.unsupported(index)),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// The argument has another type.
    pub fn float(&self, index: usize) -> Result<f64> {
        match self.at(index) {
            Argument::Int(value) => Ok(*value as f64),
            Argument::Float(value) => Ok(*value),
            _ => Err(self.unsupported(index)),
        }
    }

    /// A list of integers.
    ///
    /// # Errors
    /// The argument has another type.
    pub fn ints(&self, index: usize) -> Result<Vec<i64>> {
        let Argument::List(items) = self.at(index) else { return Err(self.unsupported(index)) };
        let int = |item: &Argument| match item {
            Argument::Int(value) => Ok(*value),
            _ => Err(self.unsupported(index)),
        };
        items.iter().map(int).collect()
    }

    /// Height and width: two integers, or one for both.
    ///
    /// # Errors
    /// The argument has another type.
    pub fn pair(&self, index: usize) -> Result<[i64; 2]> {
        match self.ints(index)?[..] {
            [both] => Ok([both; 2]),
            [height, width] => Ok([height, width]),
            _ => Err(self.unsupported(index)),
        }
    }

    /// Checks an argument for which the other format has only one value.
    ///
    /// # Errors
    /// It has another value.
    pub fn demand(&self, index: usize, value: i64) -> Result<()> {
        match self.float(index)? == value as f64 {
            true => Ok(()),
            false => Err(self.unsupported(index)),
        }
    }

    /// The error for an argument without equivalent.
    pub fn unsupported(&self, index: usize) -> Error {
        let argument = self.at(index);
        Error::Config(format!(
            "{} with {argument:?} as argument {index} cannot be written as ONNX; export TorchScript \
             instead",
            self.kind
        ))
    }
}
