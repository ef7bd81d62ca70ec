//! The values of a pickle, in an arena.

use tch::Kind;

/// The meaning of a name of the allow-list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::weights) enum Global<'a> {
    /// Makes an empty dict.
    Dict,
    /// Returns its one argument: `torch.Size`, TorchScript's typed lists.
    Same,
    /// Makes a value that no tensor depends on.
    Inert,
    /// `_rebuild_tensor(storage, offset, size, stride)` and its later versions, which add arguments.
    Tensor,
    /// As `Tensor`, with the dtype as seventh argument over an untyped storage.
    TypedTensor,
    /// Returns its first argument: a parameter is its tensor.
    Parameter,
    /// `_rebuild_from_type_v2(function, type, arguments, state)`.
    FromType,
    /// A storage class; untyped ones hold bytes.
    Storage(Option<Kind>),
    /// `torch.float32` and the like.
    Dtype(Kind),
    /// A class of a TorchScript archive's code.
    Class(&'a str),
}

/// An index into one of the [`Heap`]'s lists.
pub(in crate::weights) type Id = usize;

/// A Python value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::weights) enum Value<'a> {
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

/// The bytes of tensors; `key` is their name in the file.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::weights) struct StorageRef<'a> {
    pub key: &'a str,
    /// `None` for an untyped storage, whose elements are bytes.
    pub kind: Option<Kind>,
    pub elements: i64,
    /// Offset in the named storage, in elements (old files only).
    pub offset: i64,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::weights) struct TensorRef {
    pub storage: Id,
    pub kind: Kind,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub stride: Vec<i64>,
}

/// The values of one pickle.
#[derive(Debug, Default)]
pub(in crate::weights) struct Heap<'a> {
    pub sequences: Vec<Vec<Value<'a>>>,
    pub dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub storages: Vec<StorageRef<'a>>,
    pub tensors: Vec<TensorRef>,
}

pub(super) fn push<T>(list: &mut Vec<T>, value: T) -> Id {
    list.push(value);
    list.len() - 1
}

impl<'a> Heap<'a> {
    pub(super) fn sequence(&mut self, values: Vec<Value<'a>>) -> Value<'a> {
        Value::Sequence(push(&mut self.sequences, values))
    }

    pub(super) fn dict(&mut self) -> Value<'a> {
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
