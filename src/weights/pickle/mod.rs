//! Pickle, as far as tensor files use it, read without ever running what it says.
//!
//! Python's pickle is a program for a stack machine whose `GLOBAL` and `REDUCE` instructions call
//! any function of the interpreter. [`machine`] runs the instructions that build plain values;
//! [`globals`] is the list of the names it knows, each answered by a few lines of Rust. A name
//! that is not in the list ends the reading with an error that says which.
//!
//! Values live in an arena ([`Heap`]) and point to each other by number, so that sharing, cycles
//! and nesting without end cost nothing and cannot overflow a stack. Texts borrow from the input.

mod globals;
mod machine;

pub(super) use machine::{Pickle, run};

use tch::Kind;

use globals::Global;

/// A number into one of the [`Heap`]'s lists.
pub(super) type Id = usize;

/// A Python value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// A list or tuple: [`Heap::sequences`].
    Sequence(Id),
    /// A dict or OrderedDict: [`Heap::dicts`].
    Dict(Id),
    /// An object of a TorchScript class: its attributes are in [`Heap::dicts`].
    Object(Id),
    /// A name of the allow-list.
    Global(Global<'a>),
    /// [`Heap::storages`].
    Storage(Id),
    /// [`Heap::tensors`].
    Tensor(Id),
    /// A harmless value that no tensor depends on: a set, a big number, a NumPy scalar.
    Opaque,
}

/// The bytes a tensor looks at: `key` names them in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StorageRef<'a> {
    pub key: &'a str,
    /// `None` for an untyped storage, whose elements are bytes.
    pub kind: Option<Kind>,
    pub elements: i64,
    /// Where this storage begins inside the one named, in elements (old files only).
    pub offset: i64,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorRef {
    pub storage: Id,
    pub kind: Kind,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub stride: Vec<i64>,
}

/// Where the values of one pickle live.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    pub sequences: Vec<Vec<Value<'a>>>,
    pub dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub storages: Vec<StorageRef<'a>>,
    pub tensors: Vec<TensorRef>,
}

fn push<T>(list: &mut Vec<T>, value: T) -> Id {
    list.push(value);
    list.len() - 1
}

impl<'a> Heap<'a> {
    fn sequence(&mut self, values: Vec<Value<'a>>) -> Value<'a> {
        Value::Sequence(push(&mut self.sequences, values))
    }

    fn dict(&mut self) -> Value<'a> {
        Value::Dict(push(&mut self.dicts, Vec::new()))
    }

    /// The items of a list or tuple.
    pub fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Sequence(id) => self.sequences.get(id).map(Vec::as_slice),
            _ => None,
        }
    }

    /// The entries of a dict or an object's attributes.
    pub fn entries(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match value {
            Value::Dict(id) | Value::Object(id) => self.dicts.get(id).map(Vec::as_slice),
            _ => None,
        }
    }

    /// A dict's value under a text key.
    pub fn get(&self, dict: Value<'a>, key: &str) -> Option<Value<'a>> {
        let entries = self.entries(dict)?;
        entries.iter().rev().find(|(k, _)| *k == Value::Text(key)).map(|&(_, value)| value)
    }
}
