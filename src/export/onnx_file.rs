//! The ONNX file format: a handful of protobuf messages (onnx.proto, IR version 8), as bytes.
//!
//! Only what a network of floats needs is here. Field numbers are those of `onnx.proto`.

/// A protobuf message in the making.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    /// The finished bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer field; negative ones take ten bytes, as protobuf's `int64` does.
    pub fn int(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3);
        self.varint(value as u64);
        self
    }

    /// A float32 field.
    pub fn float(mut self, field: u64, value: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A field of bytes, or of text.
    pub fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend(value.as_ref());
        self
    }

    /// A message inside this one.
    pub fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, value.0)
    }

    /// One field for each item, in their order.
    pub fn each<T>(
        self,
        items: impl IntoIterator<Item = T>,
        add: impl Fn(Self, T) -> Self,
    ) -> Self {
        items.into_iter().fold(self, add)
    }
}

/// The values of a tensor that is part of the file.
#[derive(Debug)]
pub enum Values {
    /// float32.
    Floats(Vec<f32>),
    /// int64.
    Ints(Vec<i64>),
}

/// A tensor that is part of the file.
#[derive(Debug)]
pub struct Initializer {
    /// The state-dict key, or a name of ours for a constant.
    pub name: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<i64>,
    /// Row-major.
    pub values: Values,
}

/// An attribute's value.
#[derive(Debug)]
pub enum Attribute {
    /// A number or a switch.
    Int(i64),
    /// A list of them.
    Ints(Vec<i64>),
    /// A number.
    Float(f64),
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// ONNX's name for it: `Conv`.
    pub kind: &'static str,
    /// Names of values and initialisers.
    pub inputs: Vec<String>,
    /// The name of the value it makes.
    pub output: String,
    /// By name.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// One side of a tensor.
#[derive(Debug, Clone)]
pub enum Side {
    /// So many.
    Fixed(i64),
    /// Any number, under this name.
    Named(&'static str),
}

/// A float32 tensor that goes in or comes out.
#[derive(Debug)]
pub struct Port {
    /// Its name.
    pub name: &'static str,
    /// Its shape.
    pub shape: Vec<Side>,
}

impl Initializer {
    fn message(self) -> Message {
        let (kind, bytes): (i64, Vec<u8>) = match self.values {
            Values::Floats(values) => (1, values.into_iter().flat_map(f32::to_le_bytes).collect()),
            Values::Ints(values) => (7, values.into_iter().flat_map(i64::to_le_bytes).collect()),
        };
        Message::default()
            .each(self.shape, |tensor, side| tensor.int(1, side))
            .int(2, kind)
            .bytes(8, self.name)
            .bytes(9, bytes)
    }
}

impl Attribute {
    fn message(self, name: &str) -> Message {
        let start = Message::default().bytes(1, name);
        match self {
            Self::Float(value) => start.float(2, value as f32).int(20, 1),
            Self::Int(value) => start.int(3, value).int(20, 2),
            Self::Ints(values) => start.each(values, |out, value| out.int(8, value)).int(20, 7),
        }
    }
}

impl Operation {
    fn message(self) -> Message {
        Message::default()
            .each(self.inputs, |node, name| node.bytes(1, name))
            .bytes(2, &self.output)
            .bytes(3, &self.output)
            .bytes(4, self.kind)
            .each(self.attributes, |node, (name, value)| node.message(5, value.message(name)))
    }
}

impl Port {
    fn message(self) -> Message {
        let side = |side| match side {
            Side::Fixed(count) => Message::default().int(1, count),
            Side::Named(name) => Message::default().bytes(2, name),
        };
        let shape = Message::default().each(self.shape, |out, one| out.message(1, side(one)));
        let tensor = Message::default().int(1, 1).message(2, shape);
        Message::default().bytes(1, self.name).message(2, Message::default().message(1, tensor))
    }
}

/// A graph with all that surrounds it.
#[derive(Debug)]
pub struct Model {
    /// The graph's name.
    pub name: &'static str,
    /// What goes in and comes out, in words.
    pub description: String,
    /// Operations, each behind those it needs.
    pub operations: Vec<Operation>,
    /// Tensors.
    pub initializers: Vec<Initializer>,
    /// What goes in.
    pub input: Port,
    /// What comes out.
    pub outputs: Vec<Port>,
    /// Free text by key.
    pub metadata: Vec<(&'static str, String)>,
}

/// The version of the operator set; 18 is the first where all reductions take their axes alike.
pub const OPSET: i64 = 18;
const IR_VERSION: i64 = 8;

impl Model {
    /// The file.
    pub fn into_bytes(self) -> Vec<u8> {
        let graph = Message::default()
            .each(self.operations, |graph, one| graph.message(1, one.message()))
            .bytes(2, self.name)
            .each(self.initializers, |graph, one| graph.message(5, one.message()))
            .message(11, self.input.message())
            .each(self.outputs, |graph, port| graph.message(12, port.message()));
        Message::default()
            .int(1, IR_VERSION)
            .bytes(2, "visage")
            .bytes(3, env!("CARGO_PKG_VERSION"))
            .bytes(6, self.description)
            .message(7, graph)
            .message(8, Message::default().bytes(1, "").int(2, OPSET))
            .each(self.metadata, |model, (key, value)| {
                model.message(14, Message::default().bytes(1, key).bytes(2, value))
            })
            .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of protobuf's documentation of its encoding.
    #[test]
    fn fields_are_encoded_as_the_format_says() {
        assert_eq!(Message::default().int(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        let text = Message::default().bytes(2, "testing").into_bytes();
        assert_eq!(text, [&[0x12, 0x07][..], b"testing"].concat());
        let inner = Message::default().int(1, 150);
        let outer = Message::default().message(3, inner).into_bytes();
        assert_eq!(outer, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let negative = Message::default().int(1, -2).into_bytes();
        assert_eq!(negative[..2], [0x08, 0xfe]);
        assert_eq!(negative.len(), 11);
        assert_eq!(Message::default().float(2, 1.0).into_bytes(), [0x15, 0, 0, 0x80, 0x3f]);
    }
}
