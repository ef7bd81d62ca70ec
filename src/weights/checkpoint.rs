//! Finds the named tensors in a file of `torch.save`: a state dict, a checkpoint that contains one, or
//! a TorchScript module.

use std::collections::BTreeMap;

use super::pickle::{Heap, Id, Pickle, Value};

/// Keys under which training scripts keep the state dict, the likeliest first.
const WRAPPERS: [&str; 10] = [
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "backbone",
    "module",
    "params",
    "weights",
];

/// Prefixes that `DataParallel` and `torch.compile` add to every key.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];

/// Maximum nesting; Python's own pickler fails at a few hundred levels.
const MAX_DEPTH: usize = 64;
/// Maximum number of visited values, against dicts that contain themselves.
const MAX_VALUES: usize = 1_000_000;

/// Maximum number of tensors in a file, and of bytes in a key: every tensor repeats its parents' keys.
const MAX_TENSORS: usize = 100_000;
const MAX_KEY: usize = 1000;
/// Maximum number of nested wrappers whose prefixes are removed.
const MAX_PREFIXES: usize = 8;

/// Named tensors, and notes on how they were found.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// In the order of the file.
    pub tensors: Vec<(String, Id)>,
    pub notes: Vec<String>,
}

/// Finds the state dict in a pickled value and names its tensors.
///
/// # Errors
/// There is no tensor, or the value contains itself.
pub(super) fn named_tensors(pickle: &Pickle) -> Result<Named, String> {
    let heap = &pickle.heap;
    let mut notes = Vec::new();
    let mut value = pickle.value;
    let mut unwrapped = Vec::new();
    while let Some((key, inner)) = wrapped(heap, value) {
        unwrapped.push(key);
        let others = heap.entries(value).unwrap_or_default();
        let others = others.iter().filter_map(|(k, _)| match k {
            Value::Text(name) if *name != key => Some(shortened(name)),
            _ => None,
        });
        let others: Vec<_> = others.take(20).collect();
        let ignored = if others.is_empty() {
            String::new()
        } else {
            format!("; other entries ignored: {}", others.join(", "))
        };
        notes.push(format!("the tensors are under \"{}\"{ignored}", unwrapped.join(".")));
        value = inner;
        if unwrapped.len() > MAX_DEPTH {
            return Err("a dict that contains itself".into());
        }
    }
    let mut walk = Walk { heap, tensors: Vec::new(), ignored: 0, visited: 0 };
    walk.value(value, "", 0, false)?;
    let Walk { tensors, ignored, .. } = walk;
    if tensors.is_empty() {
        return Err("holds no tensors".into());
    }
    if ignored > 0 {
        notes.push(format!("{ignored} values that are not tensors were ignored"));
    }
    // A duplicate key has its last value, as in Python.
    let mut last: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, (name, _)) in tensors.iter().enumerate() {
        last.insert(name, index);
    }
    let mut keep: Vec<usize> = last.into_values().collect();
    keep.sort_unstable();
    let tensors = keep.into_iter().map(|index| tensors[index].clone()).collect();
    Ok(Named { tensors, notes })
}

/// The state dict inside a checkpoint; `None` for a dict that contains tensors itself.
fn wrapped<'a>(heap: &Heap<'a>, value: Value<'a>) -> Option<(&'static str, Value<'a>)> {
    let Value::Dict(_) = value else { return None };
    let entries = heap.entries(value)?;
    if entries.iter().any(|(_, value)| matches!(value, Value::Tensor(_))) {
        return None;
    }
    WRAPPERS.iter().find_map(|&key| {
        let inner = heap.get(value, key)?;
        let is_model =
            |(_, value): &(Value, Value)| matches!(value, Value::Tensor(_) | Value::Dict(_));
        heap.entries(inner)?.iter().any(is_model).then_some((key, inner))
    })
}

struct Walk<'a, 'h> {
    heap: &'h Heap<'a>,
    tensors: Vec<(String, Id)>,
    ignored: usize,
    visited: usize,
}

impl<'a> Walk<'a, '_> {
    fn value(
        &mut self,
        value: Value<'a>,
        name: &str,
        depth: usize,
        object: bool,
    ) -> Result<(), String> {
        self.visited += 1;
        if name.len() > MAX_KEY || self.tensors.len() > MAX_TENSORS {
            let most = format!("{MAX_TENSORS} tensors and keys of {MAX_KEY} bytes");
            return Err(format!("is beyond {most}, at \"{}\"", shortened(name)));
        }
        if depth > MAX_DEPTH || self.visited > MAX_VALUES {
            return Err(format!("nests too deep or holds itself, at \"{}\"", shortened(name)));
        }
        let below =
            |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
        if let Value::Tensor(id) = value {
            let name = if name.is_empty() { "tensor" } else { name };
            self.tensors.push((name.to_owned(), id));
        } else if let Some(entries) = self.heap.entries(value) {
            let object = matches!(value, Value::Object(_));
            for &(key, value) in entries {
                match key {
                    // tch writes `a|b` where the state dict says `a.b`.
                    Value::Text(key) if object => {
                        self.value(value, &below(&key.replace('|', ".")), depth + 1, true)?
                    }
                    Value::Text(key) => self.value(value, &below(key), depth + 1, false)?,
                    Value::Int(key) => {
                        self.value(value, &below(&key.to_string()), depth + 1, false)?
                    }
                    _ => self.ignored += 1,
                }
            }
        } else if let Some(items) = self.heap.items(value) {
            let holds_more = |item: &&Value| {
                matches!(item, Value::Tensor(_) | Value::Dict(_) | Value::Sequence(_))
            };
            for (index, &item) in items.iter().enumerate().filter(|(_, item)| holds_more(item)) {
                self.value(item, &below(&index.to_string()), depth + 1, object)?;
            }
        } else if !object {
            // A TorchScript module's own settings (`training`) are not reported.
            self.ignored += 1;
        }
        Ok(())
    }
}

fn shortened(name: &str) -> String {
    let short: String = name.chars().take(60).collect();
    if short.len() < name.len() { format!("{short}...") } else { short }
}

/// Removes the prefixes of wrapped models, where every key has them, and adds a note.
pub(super) fn strip_prefixes<'n>(
    names: impl Iterator<Item = &'n mut String>,
    notes: &mut Vec<String>,
) {
    let mut names: Vec<&mut String> = names.collect();
    for _ in 0..MAX_PREFIXES {
        let everywhere = PREFIXES.into_iter().find(|prefix| {
            names.iter().all(|name| name.len() > prefix.len() && name.starts_with(prefix))
        });
        let Some(prefix) = everywhere.filter(|_| !names.is_empty()) else { return };
        for name in &mut names {
            name.drain(..prefix.len());
        }
        notes.push(format!("\"{prefix}\" was taken off every key"));
    }
}
