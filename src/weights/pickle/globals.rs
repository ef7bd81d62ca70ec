//! The allow-list: every name a pickle may use, and the result of a call.

use tch::Kind;

use super::value::{Global, Heap, Id, StorageRef, TensorRef, Value, push};
use crate::weights::dtype;

/// Module, name, meaning.
const ALLOWED: &[(&str, &str, Global<'static>)] = &[
    ("collections", "OrderedDict", Global::Dict),
    ("collections", "defaultdict", Global::Dict),
    ("torch", "Size", Global::Same),
    ("torch", "device", Global::Inert),
    ("torch", "Tensor", Global::Inert),
    ("torch.nn.parameter", "Parameter", Global::Inert),
    ("torch._utils", "_rebuild_tensor", Global::Tensor),
    ("torch._utils", "_rebuild_tensor_v2", Global::Tensor),
    ("torch._utils", "_rebuild_tensor_v3", Global::TypedTensor),
    ("torch._utils", "_rebuild_parameter", Global::Parameter),
    ("torch._utils", "_rebuild_parameter_with_state", Global::Parameter),
    ("torch._tensor", "_rebuild_from_type_v2", Global::FromType),
    ("torch", "UntypedStorage", Global::Storage(None)),
    ("torch.storage", "UntypedStorage", Global::Storage(None)),
    ("torch.jit._pickle", "build_intlist", Global::Same),
    ("torch.jit._pickle", "build_doublelist", Global::Same),
    ("torch.jit._pickle", "build_boollist", Global::Same),
    ("torch.jit._pickle", "build_tensorlist", Global::Same),
    ("torch.jit._pickle", "restore_type_tag", Global::Parameter),
    ("_codecs", "encode", Global::Inert),
    ("numpy", "dtype", Global::Inert),
    ("numpy", "ndarray", Global::Inert),
    ("numpy.core.multiarray", "scalar", Global::Inert),
    ("numpy.core.multiarray", "_reconstruct", Global::Inert),
    ("numpy._core.multiarray", "scalar", Global::Inert),
    ("numpy._core.multiarray", "_reconstruct", Global::Inert),
];

/// Types and constructors of plain values, under Python 3's and Python 2's module name.
const PLAIN: [&str; 12] = [
    "set",
    "frozenset",
    "bytearray",
    "complex",
    "dict",
    "list",
    "tuple",
    "int",
    "float",
    "bool",
    "str",
    "slice",
];

const MAX_ARGUMENTS: usize = 16;
/// libtorch's own limit.
const MAX_DIMENSIONS: usize = 64;

const NEVER: &str =
    "Visage never executes code from a pickle and reads tensors and plain values only";

/// Looks up a name. `torchscript` allows the archive's own classes, as plain attributes.
pub(super) fn resolve<'a>(
    module: &'a str,
    name: &'a str,
    torchscript: bool,
) -> Result<Global<'a>, String> {
    let known = ALLOWED.iter().find(|(m, n, _)| *m == module && *n == name);
    if let Some(&(_, _, global)) = known {
        return Ok(global);
    }
    if ["builtins", "__builtin__"].contains(&module) && PLAIN.contains(&name) {
        return Ok(Global::Inert);
    }
    if ["torch", "torch.cuda", "torch.storage"].contains(&module) {
        if let Some(row) = dtype::find(|row| row.storage == name) {
            return Ok(Global::Storage(Some(row.kind)));
        }
        if let Some(row) = dtype::find(|row| row.name == name) {
            return Ok(Global::Dtype(row.kind));
        }
        if name.ends_with("Storage") && name != "TypedStorage" {
            let known = dtype::names();
            return Err(format!("holds a torch.{name}; the dtypes that can be read are {known}"));
        }
    }
    if torchscript && (module == "__torch__" || module.starts_with("__torch__.")) {
        return Ok(Global::Class(name));
    }
    let advice = "if the file is a whole pickled model, save model.state_dict() instead";
    Err(format!("asks for {module}.{name}, which is refused: {NEVER}; {advice}"))
}

/// A copy of a call's arguments; no function of the allow-list has many.
pub(super) fn arguments<'a>(heap: &Heap<'a>, list: Value<'a>) -> Result<Vec<Value<'a>>, String> {
    let items = heap.items(list).unwrap_or_default();
    if items.len() > MAX_ARGUMENTS {
        Err("a call with too many arguments".into())
    } else {
        Ok(items.to_vec())
    }
}

/// Calls a name: our own implementation instead of Python's function.
pub(super) fn call<'a>(
    heap: &mut Heap<'a>,
    global: Global<'a>,
    arguments: &[Value<'a>],
) -> Result<Value<'a>, String> {
    match global {
        Global::Dict => {
            let dict = heap.dict();
            // OrderedDict([(key, value), ...]), as Python 2 wrote it. The list is moved, so that
            // using it repeatedly cannot multiply it.
            if let (Value::Dict(id), Some(&Value::Sequence(list))) = (dict, arguments.first()) {
                let list = std::mem::take(&mut heap.sequences[list]);
                let pairs = list.into_iter().filter_map(|pair| match heap.items(pair) {
                    Some(&[key, value]) => Some((key, value)),
                    _ => None,
                });
                let pairs = pairs.collect();
                heap.dicts[id] = pairs;
            }
            Ok(dict)
        }
        Global::Inert | Global::Dtype(_) => Ok(Value::Opaque),
        Global::Same | Global::Parameter => {
            arguments.first().copied().ok_or_else(|| "a call without arguments".to_owned())
        }
        Global::Tensor => tensor(heap, arguments, None),
        Global::TypedTensor => match arguments.get(6) {
            Some(Value::Global(Global::Dtype(kind))) => tensor(heap, arguments, Some(*kind)),
            _ => Err("a tensor of a dtype that Visage does not know".into()),
        },
        Global::FromType => match arguments {
            [Value::Global(inner), _, inner_arguments, ..] if *inner != Global::FromType => {
                let inner_arguments = self::arguments(heap, *inner_arguments)?;
                call(heap, *inner, &inner_arguments)
            }
            _ => Err("a tensor rebuilt in a way that Visage does not know".into()),
        },
        Global::Storage(_) => Err("a storage made by a call; its bytes are not in the file".into()),
        Global::Class(name) => Err(format!("a call of the class {name}")),
    }
}

/// `(storage, offset, size, stride, ...)`; bounds are checked later, against the file's bytes.
fn tensor<'a>(
    heap: &mut Heap<'a>,
    arguments: &[Value<'a>],
    kind: Option<Kind>,
) -> Result<Value<'a>, String> {
    let malformed = || "a tensor without storage, offset, size and strides".to_owned();
    let &[Value::Storage(storage), Value::Int(offset), size, stride, ..] = arguments else {
        return Err(malformed());
    };
    let numbers = |value| -> Option<Vec<i64>> {
        let whole = |item: &Value| if let Value::Int(n) = item { Some(*n) } else { None };
        let items = heap.items(value).filter(|items| items.len() <= MAX_DIMENSIONS)?;
        items.iter().map(whole).collect()
    };
    let (Some(shape), Some(stride)) = (numbers(size), numbers(stride)) else {
        return Err(malformed());
    };
    let of_storage = heap.storages.get(storage).and_then(|storage| storage.kind);
    let Some(kind) = kind.or(of_storage) else { return Err("a tensor without a dtype".into()) };
    let tensor = TensorRef { storage, kind, offset, shape, stride };
    Ok(Value::Tensor(push(&mut heap.tensors, tensor)))
}

/// A persistent id: `('storage', class, key, device, elements[, view])`.
pub(super) fn storage<'a>(heap: &mut Heap<'a>, id: Value<'a>) -> Result<Value<'a>, String> {
    let items = heap.items(id).unwrap_or_default();
    let (kind, key, elements, view) = match *items {
        [
            Value::Text("storage"),
            Value::Global(Global::Storage(kind)),
            Value::Text(key),
            _,
            Value::Int(elements),
            ref view @ ..,
        ] => (kind, key, elements, view.first().copied()),
        _ => return Err("a persistent id that names no storage".into()),
    };
    // Old files: (key of the view, offset, elements).
    let (offset, elements) = match view.map(|view| heap.items(view).unwrap_or_default()) {
        Some(&[_, Value::Int(offset), Value::Int(elements)]) => (offset, elements),
        Some(&[]) | None => (0, elements),
        Some(_) => return Err("a storage's view without offset and size".into()),
    };
    let storage = StorageRef { key, kind, elements, offset };
    let id: Id = push(&mut heap.storages, storage);
    Ok(Value::Storage(id))
}
