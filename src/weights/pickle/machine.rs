//! The stack machine: runs instructions, each of at least one byte, until STOP.

use std::collections::HashMap;

use super::globals;
use super::value::{Global, Heap, Value};

/// Far above any tensor file; a longer pickle is malicious or damaged.
const MAX_INSTRUCTIONS: usize = 2_000_000;

/// The value of a pickle, and where it ended.
#[derive(Debug)]
pub(in crate::weights) struct Pickle<'a> {
    pub heap: Heap<'a>,
    pub value: Value<'a>,
    /// The offset behind STOP.
    pub end: usize,
    /// The bytes of the first number of more than 64 bits, such as the magic number of old files.
    pub big: Option<&'a [u8]>,
}

/// Runs the pickle at the beginning of `bytes`.
///
/// # Errors
/// The offset of the invalid instruction, and why.
pub(in crate::weights) fn run(
    bytes: &[u8],
    torchscript: bool,
) -> Result<Pickle<'_>, (usize, String)> {
    let mut machine = Machine {
        bytes,
        at: 0,
        heap: Heap::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        big: None,
        torchscript,
    };
    for _ in 0..MAX_INSTRUCTIONS {
        let start = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(value)) => {
                let Machine { heap, at, big, .. } = machine;
                return Ok(Pickle { heap, value, end: at, big });
            }
            Err(reason) => return Err((start, reason)),
        }
    }
    Err((machine.at, format!("the pickle goes on after {MAX_INSTRUCTIONS} instructions")))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    heap: Heap<'a>,
    stack: Vec<Value<'a>>,
    /// The stack's height at each MARK.
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    big: Option<&'a [u8]>,
    torchscript: bool,
}

type Step<T> = Result<T, String>;

impl<'a> Machine<'a> {
    fn take(&mut self, count: u64) -> Step<&'a [u8]> {
        let left = self.bytes.len() - self.at;
        let count =
            usize::try_from(count).ok().filter(|&count| count <= left).ok_or_else(|| {
                format!("the pickle is truncated: {count} bytes expected, {left} left")
            })?;
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// An unsigned little-endian number of `width` bytes, at most 8.
    fn number(&mut self, width: u64) -> Step<u64> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
    }

    /// Length-prefixed bytes.
    fn counted(&mut self, width: u64) -> Step<&'a [u8]> {
        let count = self.number(width)?;
        self.take(count)
    }

    fn utf8(bytes: &'a [u8]) -> Step<&'a str> {
        std::str::from_utf8(bytes).map_err(|_| "a text that is not UTF-8".to_owned())
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("a line without an end")?;
        self.at += end + 1;
        Self::utf8(&rest[..end])
    }

    /// A whole number in two's complement.
    fn long(&mut self, bytes: &'a [u8]) -> Value<'a> {
        if bytes.len() > 8 {
            self.big.get_or_insert(bytes);
            return Value::Opaque;
        }
        let sign = if bytes.last().is_some_and(|last| last & 0x80 != 0) { -1 } else { 0 };
        Value::Int(bytes.iter().rev().fold(sign, |sum, &byte| sum << 8 | i64::from(byte)))
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("takes a value from an empty stack".into());
        }
        self.stack.pop().ok_or_else(|| "takes a value from an empty stack".into())
    }

    fn top(&self) -> Step<Value<'a>> {
        self.stack.last().copied().ok_or_else(|| "looks at an empty stack".into())
    }

    /// Everything above the last MARK.
    fn marked(&mut self) -> Step<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or("goes back to a MARK that is not there")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn tuple(&mut self, count: usize) -> Step<Value<'a>> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        Ok(self.heap.sequence(items))
    }

    fn recall(&self, key: u64) -> Step<Value<'a>> {
        self.memo.get(&key).copied().ok_or_else(|| format!("no memo {key}"))
    }

    fn append(&mut self, items: &[Value<'a>]) -> Step<()> {
        match self.top()? {
            Value::Sequence(id) => self.heap.sequences[id].extend_from_slice(items),
            Value::Opaque => {}
            _ => return Err("appends to something that is no list".into()),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Value<'a>]) -> Step<()> {
        match self.top()? {
            Value::Dict(id) => {
                self.heap.dicts[id].extend(items.as_chunks::<2>().0.iter().map(|&[k, v]| (k, v)));
            }
            Value::Opaque => {}
            _ => return Err("sets items of something that is no dict".into()),
        }
        Ok(())
    }

    fn call(&mut self, function: Value<'a>, arguments: Value<'a>) -> Step<Value<'a>> {
        match function {
            Value::Global(global) => {
                let arguments = globals::arguments(&self.heap, arguments)?;
                globals::call(&mut self.heap, global, &arguments)
            }
            Value::Opaque => Ok(Value::Opaque),
            _ => Err("calls something that is no function".into()),
        }
    }

    fn new_object(&mut self, class: Value<'a>) -> Step<Value<'a>> {
        match class {
            Value::Global(Global::Class(_)) => match self.heap.dict() {
                Value::Dict(id) => Ok(Value::Object(id)),
                other => Ok(other),
            },
            Value::Global(Global::Dict) => Ok(self.heap.dict()),
            Value::Global(Global::Inert) | Value::Opaque => Ok(Value::Opaque),
            _ => Err("makes an object of something that is no class".into()),
        }
    }

    /// Keeps the attributes of TorchScript objects; those of dicts and tensors are not weights. They are
    /// moved, so that using one dict for many objects cannot multiply it.
    fn build(&mut self, state: Value<'a>) -> Step<()> {
        if let (Value::Object(to), Value::Dict(from)) = (self.top()?, state) {
            let mut attributes = std::mem::take(&mut self.heap.dicts[from]);
            self.heap.dicts[to].append(&mut attributes);
        }
        Ok(())
    }

    /// Runs one instruction; STOP returns the value.
    fn step(&mut self) -> Step<Option<Value<'a>>> {
        let instruction = self.number(1)? as u8;
        let value = match instruction {
            b'.' => return self.pop().map(Some),
            // Protocol and frame lengths are not needed.
            0x80 => return self.take(1).map(|_| None),
            0x95 => return self.take(8).map(|_| None),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(None);
            }
            b'0' => {
                // POP also removes a MARK.
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    return Ok(None);
                }
                return self.pop().map(|_| None);
            }
            b'1' => return self.marked().map(|_| None),
            b'2' => self.top()?,
            // Plain values.
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.number(1)? as i64),
            b'M' => Value::Int(self.number(2)? as i64),
            b'J' => Value::Int(i64::from(self.number(4)? as u32 as i32)),
            0x8a => {
                let bytes = self.counted(1)?;
                self.long(bytes)
            }
            0x8b => {
                let bytes = self.counted(4)?;
                self.long(bytes)
            }
            b'G' => Value::Float(f64::from_bits(self.number(8)?.swap_bytes())),
            b'I' => match self.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => text.parse().map_or(Value::Opaque, Value::Int),
            },
            b'L' => self.line()?.trim_end_matches('L').parse().map_or(Value::Opaque, Value::Int),
            b'F' => self.line()?.parse().map_or(Value::Opaque, Value::Float),
            // Texts; Python 2 wrote them as bytes.
            b'X' => Value::Text(Self::utf8(self.counted(4)?)?),
            0x8c => Value::Text(Self::utf8(self.counted(1)?)?),
            0x8d => Value::Text(Self::utf8(self.counted(8)?)?),
            b'V' => Value::Text(self.line()?),
            b'S' => Value::Text(self.line()?.trim_matches(['\'', '"'])),
            b'U' | b'T' => {
                let bytes = self.counted(if instruction == b'U' { 1 } else { 4 })?;
                std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text)
            }
            b'C' => Value::Bytes(self.counted(1)?),
            b'B' => Value::Bytes(self.counted(4)?),
            0x8e | 0x96 => Value::Bytes(self.counted(8)?),
            // Containers.
            b']' | b')' => self.heap.sequence(Vec::new()),
            b'}' => self.heap.dict(),
            b'l' | b't' => {
                let items = self.marked()?;
                self.heap.sequence(items)
            }
            0x85..=0x87 => self.tuple(usize::from(instruction - 0x84))?,
            b'd' => {
                let items = self.marked()?;
                let dict = self.heap.dict();
                self.stack.push(dict);
                return self.set(&items).map(|()| None);
            }
            0x8f => Value::Opaque,
            0x91 => {
                self.marked()?;
                Value::Opaque
            }
            0x90 => return self.marked().map(|_| None),
            b'a' => {
                let item = self.pop()?;
                return self.append(&[item]).map(|()| None);
            }
            b'e' => {
                let items = self.marked()?;
                return self.append(&items).map(|()| None);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                return self.set(&[key, value]).map(|()| None);
            }
            b'u' => {
                let items = self.marked()?;
                return self.set(&items).map(|()| None);
            }
            // The memo.
            b'q' | b'r' | b'p' | 0x94 => {
                let key = match instruction {
                    b'q' => self.number(1)?,
                    b'r' => self.number(4)?,
                    b'p' => self.line()?.parse().map_err(|_| "a memo without a number")?,
                    _ => self.memo.len() as u64,
                };
                let top = self.top()?;
                self.memo.insert(key, top);
                return Ok(None);
            }
            b'h' => {
                let key = self.number(1)?;
                self.recall(key)?
            }
            b'j' => {
                let key = self.number(4)?;
                self.recall(key)?
            }
            b'g' => {
                let key = self.line()?.parse().map_err(|_| "a memo without a number")?;
                self.recall(key)?
            }
            // Names, calls, storages.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                Value::Global(globals::resolve(module, name, self.torchscript)?)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else {
                    return Err("a global whose name is no text".into());
                };
                Value::Global(globals::resolve(module, name, self.torchscript)?)
            }
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments)?
            }
            0x81 => {
                let (_, class) = (self.pop()?, self.pop()?);
                self.new_object(class)?
            }
            b'b' => {
                let state = self.pop()?;
                return self.build(state).map(|()| None);
            }
            b'Q' => {
                let id = self.pop()?;
                globals::storage(&mut self.heap, id)?
            }
            other => return Err(format!("the instruction {other:#04x} is not one Visage follows")),
        };
        self.stack.push(value);
        Ok(None)
    }
}
