//! A recorded network as a list of operations.

use serde::Deserialize;

use crate::{Error, Result};

/// The operations, in the order in which they run. Values are numbered.
#[derive(Debug, Deserialize)]
pub struct Graph {
    /// The pictures.
    pub input: u64,
    /// The results.
    pub outputs: Vec<u64>,
    /// What is done in between.
    pub nodes: Vec<Node>,
}

/// One operation.
#[derive(Debug, Deserialize)]
pub struct Node {
    /// PyTorch's name for it, `aten::relu`.
    pub kind: String,
    /// Its arguments, in the order of PyTorch's schema.
    pub inputs: Vec<Argument>,
    /// What it makes.
    pub outputs: Vec<u64>,
}

/// An argument of an operation.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Argument {
    /// What another operation made.
    Value(u64),
    /// A tensor of the model, by its key.
    Attribute(String),
    /// An optional argument that is not given.
    None,
    /// A number or a switch.
    Int(i64),
    /// A number.
    Float(f64),
    /// A list of any of these.
    List(Vec<Argument>),
    /// Something else, by the name of its type; errors show it.
    Other(#[allow(dead_code)] String),
}

impl Graph {
    /// Reads what [`Trace::describe`](crate::native::trace::Trace::describe) writes.
    ///
    /// # Errors
    /// The text is not of that form.
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .map_err(|error| Error::Config(format!("the recorded network cannot be read: {error}")))
    }
}

impl Node {
    /// The argument at `index`; one left out counts as not given.
    pub fn at(&self, index: usize) -> &Argument {
        self.inputs.get(index).unwrap_or(&Argument::None)
    }

    /// An integer or a switch.
    ///
    /// # Errors
    /// The argument is something else.
    pub fn int(&self, index: usize) -> Result<i64> {
        match self.at(index) {
            Argument::Int(value) => Ok(*value),
            _ => Err(self.unsupported(index)),
        }
    }

    /// Any number.
    ///
    /// # Errors
    /// The argument is something else.
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
    /// The argument is something else.
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
    /// The argument is something else.
    pub fn pair(&self, index: usize) -> Result<[i64; 2]> {
        match self.ints(index)?[..] {
            [both] => Ok([both; 2]),
            [height, width] => Ok([height, width]),
            _ => Err(self.unsupported(index)),
        }
    }

    /// Demands an argument that has one meaning only in the other format.
    ///
    /// # Errors
    /// It has another value.
    pub fn demand(&self, index: usize, value: i64) -> Result<()> {
        match self.float(index)? == value as f64 {
            true => Ok(()),
            false => Err(self.unsupported(index)),
        }
    }

    /// The error for an argument that has no counterpart.
    pub fn unsupported(&self, index: usize) -> Error {
        let argument = self.at(index);
        Error::Config(format!(
            "{} with {argument:?} as argument {index} cannot be written as ONNX; export TorchScript \
             instead",
            self.kind
        ))
    }
}
