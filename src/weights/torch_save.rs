//! The files of `torch.save`: the zip of PyTorch 1.6 and later, the older pickle stream, and
//! TorchScript archives, which are the zip with a module instead of a dict.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

use super::checkpoint;
use super::index::{Index, WeightFormat};
use super::pickle::{self, Pickle, Value};
use super::stored::{Data, Entry, Layout, Storage};
use super::zip::{Member, Zip, inflation_budget};

/// A record that Visage adds to the zip: the metadata that safetensors has in its header.
pub(super) const METADATA: &str = "visage.json";

const BIG_ENDIAN: &str = "was written on a big-endian machine, which Visage cannot read; load it there and save it as safetensors";

/// Reads a small member.
fn small(bytes: &[u8], member: &Member, budget: &mut usize) -> Result<Vec<u8>, String> {
    match member.data(bytes, budget)? {
        Data::Inflated(data) => Ok(data),
        Data::File(range) => {
            let data = bytes.get(range).unwrap_or_default();
            if member.crc.is_some_and(|crc| crc != crc32fast::hash(data)) {
                let Member { name, range, .. } = member;
                return Err(format!(
                    "{name} (bytes {} to {}) is damaged: its checksum differs",
                    range.start, range.end
                ));
            }
            Ok(data.to_vec())
        }
    }
}

/// Reads the zip of `torch.save`, `torch.jit.save` or tch; `prefix` is the folder in it.
pub(super) fn read_zip(bytes: &[u8], zip: &Zip, prefix: &str) -> Result<Index, String> {
    let mut budget = inflation_budget(bytes.len());
    let member = |name: &str| zip.get(&format!("{prefix}{name}"));
    if let Some(order) = member("byteorder")
        && small(bytes, order, &mut budget)?.trim_ascii() != b"little"
    {
        return Err(BIG_ENDIAN.into());
    }
    let code = format!("{prefix}code/");
    let torchscript = member("constants.pkl").is_some()
        || zip.members.iter().any(|member| member.name.starts_with(&code));
    let Some(member_of_pickle) = member("data.pkl") else { return Err("has no data.pkl".into()) };
    let program = small(bytes, member_of_pickle, &mut budget)?;
    let pickle = pickle::run(&program, torchscript).map_err(|(at, reason)| {
        let name = &member_of_pickle.name;
        match member_of_pickle.deflated {
            true => format!("{name}, its byte {at}: {reason}"),
            false => format!("{name}, byte {}: {reason}", member_of_pickle.range.start + at),
        }
    })?;
    let mut index =
        Index::new(if torchscript { WeightFormat::TorchScript } else { WeightFormat::TorchZip });
    let mut known: HashMap<&str, usize> = HashMap::new();
    name_tensors(&pickle, &mut index, |index, key| {
        if let Some(&storage) = known.get(key) {
            return Ok(storage);
        }
        let name = format!("{prefix}data/{key}");
        let member = zip.get(&name).ok_or_else(|| format!("{name} is not in the file"))?;
        let data = member.data(bytes, &mut budget)?;
        let crc = Cell::new(member.crc.filter(|_| !member.deflated));
        index.storages.push(Storage { name, data, crc });
        known.insert(key, index.storages.len() - 1);
        Ok(index.storages.len() - 1)
    })?;
    if let Some(member) = member(METADATA) {
        let text = small(bytes, member, &mut budget)?;
        index.metadata = serde_json::from_slice::<BTreeMap<String, String>>(&text)
            .map_err(|error| format!("{}: {error}", member.name))?;
    }
    Ok(index)
}

/// The magic number of the older format, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// Whether the bytes are of the older format.
pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x80)
        && bytes.get(..32).unwrap_or(bytes).windows(MAGIC.len()).any(|window| window == MAGIC)
}

/// Reads the format of PyTorch before 1.6: magic, protocol, system, value, keys, storages.
pub(super) fn read_legacy(bytes: &[u8]) -> Result<Index, String> {
    let mut at = 0;
    let mut next = |what: &str| -> Result<Pickle, String> {
        let pickle = pickle::run(&bytes[at..], false)
            .map_err(|(inside, reason)| format!("{what}, byte {}: {reason}", at + inside))?;
        at += pickle.end;
        Ok(pickle)
    };
    if next("the magic number")?.big != Some(&MAGIC) {
        return Err("is a pickle, yet not one of torch.save".into());
    }
    let protocol = next("the protocol")?.value;
    if protocol != Value::Int(PROTOCOL) {
        return Err(format!("has torch.save's protocol {protocol:?}; only {PROTOCOL} is known"));
    }
    let system = next("the system's description")?;
    if system.heap.get(system.value, "little_endian") == Some(Value::Bool(false)) {
        return Err(BIG_ENDIAN.into());
    }
    let pickle = next("the pickle")?;
    let keys = next("the list of storages")?;

    // The storages follow the pickles: its number of elements, then the elements.
    let mut size_of: HashMap<&str, usize> = HashMap::new();
    for storage in &pickle.heap.storages {
        let size = storage.kind.map_or(1, |kind| kind.elt_size_in_bytes());
        size_of.insert(storage.key, size);
    }
    let mut index = Index::new(WeightFormat::TorchLegacy);
    let mut places: HashMap<&str, usize> = HashMap::new();
    for &key in keys.heap.items(keys.value).unwrap_or_default() {
        let Value::Text(key) = key else { return Err("a storage's key is no text".into()) };
        let Some(&size) = size_of.get(key) else {
            return Err(format!("byte {at}: nothing says what the storage {key} holds"));
        };
        let cut = |what: &str| format!("byte {at}: the file ends in the storage {key}: {what}");
        let Some(count) = bytes[at..].first_chunk::<8>() else { return Err(cut("no length")) };
        let count = u64::from_le_bytes(*count);
        let left = bytes.len() - at - 8;
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        let Some(length) = length.filter(|&length| length <= left) else {
            return Err(cut(&format!(
                "{count} elements of {size} bytes are declared, but {left} bytes follow"
            )));
        };
        places.insert(key, index.storages.len());
        let data = Data::File(at + 8..at + 8 + length);
        index.storages.push(Storage { name: format!("storage {key}"), data, crc: Cell::new(None) });
        at += 8 + length;
    }
    name_tensors(&pickle, &mut index, |_, key| {
        let place = places.get(key).copied();
        place.ok_or_else(|| format!("the storage {key} is not in the file"))
    })?;
    Ok(index)
}

/// Converts the pickle's tensors to entries; `find` locates a storage by its key.
fn name_tensors<'a>(
    pickle: &Pickle<'a>,
    index: &mut Index,
    mut find: impl FnMut(&mut Index, &'a str) -> Result<usize, String>,
) -> Result<(), String> {
    let named = checkpoint::named_tensors(pickle)?;
    for (name, id) in named.tensors {
        let tensor = &pickle.heap.tensors[id];
        let storage = &pickle.heap.storages[tensor.storage];
        let place = find(index, storage.key).map_err(|error| format!("{name}: {error}"))?;
        let available = index.storages[place].len();
        let claimed = usize::try_from(storage.elements).ok().and_then(|count| {
            count.checked_mul(storage.kind.map_or(1, |kind| kind.elt_size_in_bytes()))
        });
        if claimed.is_none_or(|claimed| claimed > available) {
            return Err(format!(
                "{name}: its storage {} declares {} elements, but has {available} bytes",
                storage.key, storage.elements
            ));
        }
        let Some(offset) = tensor.offset.checked_add(storage.offset) else {
            return Err(format!("{name}: an absurd offset"));
        };
        let layout = Layout {
            kind: tensor.kind,
            offset,
            shape: tensor.shape.clone(),
            stride: Some(tensor.stride.clone()),
        };
        index.entries.push(Entry::new(name, place, available, layout)?);
    }
    index.notes.extend(named.notes);
    Ok(())
}
