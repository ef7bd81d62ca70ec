//! Weight files: PyTorch's and NumPy's (`tests/golden/weights.py` wrote them) read to the last value,
//! ours read by PyTorch, hostile ones refused quickly.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

#[path = "common/python.rs"]
mod python;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use python::python;
use serde::Deserialize;
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use visage::weights::{TensorFile, WeightFile, WeightFormat, dtype};

#[derive(Deserialize)]
struct Golden {
    read: BTreeMap<String, BTreeMap<String, Expected>>,
    refused: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Expected {
    dtype: String,
    shape: Vec<i64>,
    values: Vec<Value>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights")
}

fn golden() -> Golden {
    serde_json::from_str(&std::fs::read_to_string(folder().join("expected.json")).unwrap()).unwrap()
}

fn seed(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

/// A tensor's values as the script wrote them to JSON.
fn values(tensor: &Tensor) -> Vec<Value> {
    let flat = tensor.contiguous().view([-1]);
    match tensor.kind() {
        Kind::Bool => Vec::<bool>::try_from(flat).unwrap().into_iter().map(Value::from).collect(),
        Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double => {
            let flat = Vec::<f64>::try_from(flat.to_kind(Kind::Double)).unwrap();
            flat.into_iter().map(Value::from).collect()
        }
        _ => {
            let flat = Vec::<i64>::try_from(flat.to_kind(Kind::Int64)).unwrap();
            flat.into_iter().map(Value::from).collect()
        }
    }
}

#[test]
fn every_format_is_read_to_the_last_value() {
    for (name, expected) in golden().read {
        let file = TensorFile::read(&folder().join(&name)).unwrap();
        let (found, wanted): (Vec<_>, Vec<_>) =
            (file.tensors.keys().collect(), expected.keys().collect());
        assert_eq!(found, wanted, "{name}");
        for (key, expected) in expected {
            let tensor = &file.tensors[&key];
            assert_eq!(dtype::name(tensor.kind()), expected.dtype, "{name}: {key}");
            assert_eq!(tensor.size(), expected.shape, "{name}: {key}");
            assert_eq!(values(tensor), expected.values, "{name}: {key}");
            assert!(tensor.is_contiguous(), "{name}: {key}");
        }
    }
}

#[test]
fn values_are_copied_straight_into_a_net_s_tensors() {
    for name in ["views_zip.pth", "dtypes_legacy.pth", "deflated.npz"] {
        let file = WeightFile::open(&folder().join(name)).unwrap();
        for entry in file.entries() {
            let to = Tensor::ones(&entry.shape, (Kind::Double, Device::Cpu));
            file.copy_into(entry, &to).unwrap();
            assert_eq!(to, file.tensor(entry).unwrap().to_kind(Kind::Double), "{}", entry.name);
            let turned = Tensor::ones(&entry.shape, (Kind::Double, Device::Cpu)).unsqueeze(0);
            let error = file.copy_into(entry, &turned).unwrap_err().to_string();
            assert!(error.contains(&entry.name) && error.contains("does not fit"), "{error}");
        }
    }
}

#[test]
fn formats_and_what_was_unwrapped_are_told() {
    let open = |name: &str| WeightFile::open(&folder().join(name)).unwrap();
    for (name, format) in [
        ("dtypes_zip.pth", WeightFormat::TorchZip),
        ("dtypes_legacy.pth", WeightFormat::TorchLegacy),
        ("script.pt", WeightFormat::TorchScript),
        ("dtypes.safetensors", WeightFormat::Safetensors),
        ("stored.npz", WeightFormat::Npz),
    ] {
        assert_eq!(open(name).format(), format, "{name}");
        assert_eq!(open(name).notes(), [""; 0], "{name}");
    }
    let notes = open("checkpoint_zip.pth").notes().join("\n");
    for part in [
        "under \"state_dict\"",
        "epoch, best, rate, classes, huge, optimizer",
        "\"module.\"",
        "\"_orig_mod.\"",
    ] {
        assert!(notes.contains(part), "{part}: {notes}");
    }
    // The order is the file's, not the alphabet's.
    let file = open("nested.pth");
    let names: Vec<_> = file.entries().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names[..3], ["layer.0.weight", "layer.0.bias", "layer.1.weight"]);
}

#[test]
fn tch_s_own_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = [
        ("a.weight", Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3])),
        ("a.steps", Tensor::from(7i64)),
    ];
    let (ot, npz) = (folder.path().join("x.ot"), folder.path().join("x.npz"));
    Tensor::save_multi(&tensors, &ot).unwrap();
    Tensor::write_npz(&tensors, &npz).unwrap();
    for path in [ot, npz] {
        let file = TensorFile::read(&path).unwrap();
        assert_eq!(file.tensors.len(), 2, "{:?}", file.tensors);
        for (name, tensor) in &tensors {
            assert_eq!(&file.tensors[*name], tensor, "{name} of {}", path.display());
        }
    }
}

#[test]
fn what_would_need_code_or_another_dtype_is_refused_by_name() {
    for (name, reason) in golden().refused {
        let error = WeightFile::open(&folder().join(&name)).unwrap_err().to_string();
        assert!(error.contains(&name) && error.contains(&reason), "{error}");
    }
    let error = WeightFile::open(&folder().join("evil.pth")).unwrap_err().to_string();
    assert!(error.contains("never executes code") && error.contains("byte"), "{error}");
}

/// The message that reading the bytes ends with; panics where they are read.
fn refusal(bytes: &[u8]) -> String {
    TensorFile::parse(Path::new("x.pth"), bytes).unwrap_err().to_string()
}

#[test]
fn other_files_are_told_by_their_beginning() {
    for (bytes, part) in [
        (&b""[..], "empty"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08 packed", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x80\x02}q\0.", "not one of torch.save"),
        (b"PK\x03\x04 and nothing else", "no table of contents"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", "safetensors"),
    ] {
        let error = refusal(bytes);
        assert!(error.starts_with("x.pth: ") && error.contains(part), "{error}");
    }
}

fn replaced(name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = without_checksums(seed(name));
    let at: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!at.is_empty() && from.len() == to.len(), "{name} has {} of {from:?}", at.len());
    for at in at {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

/// Zeroes the checksums of a zip's table of contents, which then count as not recorded.
fn without_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    for at in 0..bytes.len().saturating_sub(20) {
        if bytes[at..].starts_with(b"PK\x01\x02") {
            bytes[at + 16..at + 20].fill(0);
        }
    }
    bytes
}

#[test]
fn big_endian_files_are_refused_with_a_sentence() {
    assert!(
        refusal(&replaced("views_zip.pth", b"little", b"big   ")).contains("big-endian machine")
    );
    // The legacy format says it in a pickled dict: ... 'little_endian': True.
    let bytes = seed("views_legacy.pth");
    let key = b"little_endian";
    let at = (0..bytes.len()).find(|&at| bytes[at..].starts_with(key)).unwrap() + key.len();
    let mut bytes = bytes;
    let truth = bytes[at..].iter().position(|&byte| byte == 0x88).unwrap() + at;
    bytes[truth] = 0x89;
    assert!(refusal(&bytes).contains("big-endian machine"), "{}", refusal(&bytes));
}

#[test]
fn a_flipped_bit_in_a_zip_s_data_fails_its_checksum() {
    let bytes = seed("views_zip.pth");
    // 2.875, the last value of `base`.
    let last = 2.875f32.to_le_bytes();
    let at = (0..bytes.len()).find(|&at| bytes[at..].starts_with(&last)).unwrap();
    let mut flipped = bytes;
    flipped[at] ^= 1;
    let error = refusal(&flipped);
    assert!(error.contains("data/0") && error.contains("checksum differs"), "{error}");
}

/// `torch.save`'s older format around `pickle`, with the storage "0" of float32 or none.
fn legacy(pickle: &[u8], storage: &[f32]) -> Vec<u8> {
    let mut bytes =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    bytes.extend(pickle);
    if storage.is_empty() {
        bytes.extend(b"\x80\x02].");
        return bytes;
    }
    bytes.extend(b"\x80\x02]X\x01\0\0\x000a.");
    bytes.extend((storage.len() as u64).to_le_bytes());
    bytes.extend(storage.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// `{"w": tensor(storage of 4 floats, offset, size, stride)}`, numbers as pickle instructions.
fn tensor_at(offset: &str, size: &str, stride: &str) -> Vec<u8> {
    let text = format!(
        "}}S'w'\nctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\n\
         S'cpu'\nI4\nNtQ{offset}({size}t({stride}tI00\nNtRs."
    );
    legacy(text.as_bytes(), &[1.0, 2.0, 3.0, 4.0])
}

#[test]
fn strides_and_shapes_are_held_against_the_bytes_there_are() {
    let (path, read) = (Path::new("x.pth"), tensor_at("I1\n", "I3\n", "I1\n"));
    let file = TensorFile::parse(path, &read).unwrap();
    assert_eq!(file.tensors["w"], Tensor::from_slice(&[2f32, 3., 4.]));
    let most = "I9223372036854775807\n";
    for (offset, size, stride, reason) in [
        ("I0\n", "I4\n", "I-1\n", "negative stride"),
        ("I0\n", "I-4\n", "I1\n", "negative size"),
        ("I-1\n", "I4\n", "I1\n", "negative size or offset"),
        ("I1\n", "I4\n", "I1\n", "beyond the 16 bytes"),
        ("I0\n", "I3\n", "I2\n", "beyond the 16 bytes"),
        ("I0\n", most, "I1\n", "beyond the 16 bytes"),
        (most, "I4\n", "I1\n", "beyond the 16 bytes"),
        ("I0\n", "I2\nI2\n", "I1\n", "strides"),
        ("I0\n", "I4000000000\nI4000000000\n", "I0\nI0\n", "absurd shape"),
        ("I0\n", "I1000000000\n", "I0\n", "repeats"),
        ("I0\n", "I4\n", most, "beyond the 16 bytes"),
        ("I0\n", "S'4'\n", "I1\n", "without storage, offset, size and strides"),
    ] {
        let error = refusal(&tensor_at(offset, size, stride));
        assert!(error.contains(reason), "{size} {stride} {offset}: {error}");
    }
}

#[test]
fn a_storage_that_claims_more_than_there_is_allocates_nothing() {
    let mut bytes = tensor_at("I0\n", "I4\n", "I1\n");
    let at = bytes.len() - 24;
    for count in [5u64, 1 << 40, u64::MAX, u64::MAX / 4 + 2] {
        bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
        let error = refusal(&bytes);
        assert!(error.contains("the file ends in the storage 0"), "{error}");
    }
}

#[test]
fn endless_and_nested_pickles_end_soon() {
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"N".repeat(30_000_000), "goes on after"),
        (b"(".repeat(30_000_000), "goes on after"),
        // ((((...,),),),): nested tuples.
        ([b")".to_vec(), b"\x85".repeat(1_000_000), b".".to_vec()].concat(), "nests too deep"),
        // A list in itself, twice: without a limit the walk would double at every level.
        (b"]q\0h\0ah\0a.".to_vec(), "nests too deep"),
        (b"}q\0S'a'\nh\0sS'b'\nh\0s.".to_vec(), "nests too deep"),
        // A dict that is its own state_dict.
        (b"}q\0S'state_dict'\nh\0s.".to_vec(), "contains itself"),
        // A key that every tensor below would repeat.
        (
            [b"}X\x00\x00\x10\x00".to_vec(), vec![b'k'; 1 << 20], b"}S'w'\nNss.".to_vec()].concat(),
            "keys of 1000 bytes",
        ),
        // Lengths that are not there.
        (b"X\xff\xff\xff\xff".to_vec(), "4294967295 bytes expected"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "18446744073709551615 bytes expected"),
        (b"\x8b\xff\xff\xff\x7f".to_vec(), "2147483647 bytes expected"),
        (b"t.".to_vec(), "MARK"),
        (b"(0".to_vec(), "is truncated"),
        (b"00.".to_vec(), "empty stack"),
        (b"h\x07.".to_vec(), "no memo 7"),
        (b"cposix\nsystem\n(S'ls'\ntR.".to_vec(), "posix.system, which is refused"),
        (b"(S'ls'\niposix\nsystem\n.".to_vec(), "0x69"),
        (b"\x8c\x02os\x8c\x06system\x93.".to_vec(), "os.system, which is refused"),
        (b"c__torch__\nNet\n.".to_vec(), "__torch__.Net, which is refused"),
        (b"ctorch.storage\n_load_from_bytes\n.".to_vec(), "_load_from_bytes, which is refused"),
        (b"ctorch\nQInt8Storage\n.".to_vec(), "torch.QInt8Storage"),
    ];
    for (pickle, reason) in cases {
        let start = Instant::now();
        let error = refusal(&legacy(&pickle, &[]));
        assert!(error.contains(reason), "{reason}: {error}");
        assert!(start.elapsed() < Duration::from_secs(2), "{reason}: {:?}", start.elapsed());
    }
}

/// A zip with one deflated member.
fn zip_of(name: &str, data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let deflated =
        zip::write::FileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file(name, deflated).unwrap();
    zip.write_all(data).unwrap();
    zip.finish().unwrap().into_inner()
}

#[test]
fn zip_bombs_are_refused_before_they_grow() {
    let bomb = zip_of("x/data.pkl", &vec![b'N'; 200 << 20]);
    assert!(bomb.len() < 1 << 20);
    let start = Instant::now();
    let error = refusal(&bomb);
    assert!(error.contains("zip bomb"), "{error}");
    assert!(start.elapsed() < Duration::from_millis(100));
    // A claim smaller than what comes out is found, too.
    let at = (0..bomb.len()).find(|&at| bomb[at..].starts_with(b"PK\x01\x02")).unwrap() + 24;
    let mut liar = bomb;
    liar[at..at + 4].copy_from_slice(&1000u32.to_le_bytes());
    assert!(refusal(&liar).contains("claims 1000 bytes"), "{}", refusal(&liar));
}

#[test]
fn every_cut_of_every_file_is_an_error() {
    for name in ["views_zip.pth", "views_legacy.pth", "script.pt", "deflated.npz"] {
        let bytes = seed(name);
        for length in 0..bytes.len() {
            let error = refusal(&bytes[..length]);
            assert!(error.starts_with("x.pth: "), "{name} cut to {length}: {error}");
        }
    }
}

#[test]
fn pytorch_reads_what_is_written_here() {
    let folder_of_files = tempfile::tempdir().unwrap();
    let mut file = TensorFile::read(&folder().join("dtypes_zip.pth")).unwrap();
    file.tensors.insert(
        "a view".into(),
        Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]).tr().narrow(0, 1, 2),
    );
    file.metadata.insert("visage".into(), "{\"grüße\": 1}".into());
    let path = folder_of_files.path().join("ours.pth");
    file.write_pth(&path).unwrap();

    let back = TensorFile::read(&path).unwrap();
    assert_eq!(back.metadata, file.metadata);
    assert_eq!(back.tensors.len(), file.tensors.len());
    for (name, tensor) in &file.tensors {
        assert_eq!((&back.tensors[name], back.tensors[name].kind()), (tensor, tensor.kind()));
    }

    let Some(python) = python("torch") else { return };
    let script = "
import json, sys, torch, zipfile
assert zipfile.ZipFile(sys.argv[1]).testzip() is None
loaded = torch.load(sys.argv[1], weights_only=True)
mapped = torch.load(sys.argv[1], weights_only=True, mmap=True)
assert all(t.data_ptr() % 64 == 0 for t in mapped.values() if t.numel())
for k, t in loaded.items():
    assert torch.equal(t, mapped[k])
    wide = t.to(torch.float64 if t.is_floating_point() else t.dtype)
    print(json.dumps([k, str(t.dtype)[6:], list(t.shape), wide.flatten().tolist()]))
";
    let output = Command::new(python).args(["-c", script]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), file.tensors.len());
    for line in lines.lines() {
        let (name, kind, shape, found): (String, String, Vec<i64>, Vec<Value>) =
            serde_json::from_str(line).unwrap();
        let tensor = &file.tensors[&name];
        assert_eq!(dtype::name(tensor.kind()), kind, "{name}");
        assert_eq!(tensor.size(), shape, "{name}");
        assert_eq!(values(tensor), found, "{name}");
    }
}

fn visage(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = assert_cmd::Command::cargo_bin("visage")
        .unwrap()
        .current_dir(folder())
        .args(["--threads", "1", "weights"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn convert_keeps_every_value_and_diff_says_so() {
    let out = tempfile::tempdir().unwrap();
    for ending in ["safetensors", "pth", "pt"] {
        let new = out.path().join(format!("new.{ending}"));
        let new = new.to_str().unwrap();
        let (code, stdout, stderr) = visage(&["convert", "checkpoint_legacy.pth", new]);
        assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
        assert!(
            stderr.contains("under \"state_dict\"") && stderr.contains("7 tensors"),
            "{stderr}"
        );
        let (code, stdout, _) = visage(&["diff", new, "nested.pth"]);
        assert_eq!((code, stdout.as_str()), (Some(0), "7 tensors the same, none differ\n"));
    }
    let new = out.path().join("new.pth");
    let (code, _, stderr) = visage(&["convert", "nested.pth", new.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("new.pth: already exists") && stderr.contains("--force"), "{stderr}");
    let (code, ..) = visage(&["convert", "nested.pth", new.to_str().unwrap(), "--force"]);
    assert_eq!(code, Some(0));
    let (code, _, stderr) = visage(&["convert", "nested.pth", "x.onnx"]);
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with("error: x.onnx: ") && stderr.contains(".safetensors"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn written_files_have_the_mode_that_the_umask_gives() {
    use std::os::unix::fs::PermissionsExt;
    let out = tempfile::tempdir().unwrap();
    for (umask, mode) in [("077", 0o600), ("027", 0o640), ("002", 0o664)] {
        let new = out.path().join(format!("{umask}.pth"));
        let script = format!("umask {umask} && exec \"$0\" weights convert nested.pth \"$1\"");
        let binary = assert_cmd::cargo::cargo_bin("visage");
        let mut shell = Command::new("sh");
        let shell = shell.current_dir(folder()).arg("-c").arg(script).arg(binary).arg(&new);
        assert!(shell.output().unwrap().status.success());
        let found = std::fs::metadata(&new).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "umask {umask}: {found:o}");
    }
}

#[test]
fn inspect_shows_every_module_once_whatever_the_order_of_the_file() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("x.safetensors");
    let mut file = TensorFile::default();
    // safetensors files hold the widest dtype first: all counters, then all weights.
    for module in ["a.bn", "a.conv", "b.bn"] {
        file.tensors.insert(format!("{module}.count"), Tensor::from(1i64));
        file.tensors.insert(format!("{module}.weight"), Tensor::from(1f32));
    }
    file.write(&path).unwrap();
    let (_, stdout, _) = visage(&["inspect", path.to_str().unwrap()]);
    let names = stdout.lines().skip(1).map(|line| line.trim().split(' ').next().unwrap());
    let names: Vec<_> = names.collect();
    let leaves = ["count", "weight"];
    let expected = [&["a", "bn"][..], &leaves, &["conv"], &leaves, &["b", "bn"], &leaves].concat();
    assert_eq!(names, expected, "{stdout}");
}

#[test]
fn an_archive_that_claims_absurdly_many_members_is_refused_at_once() {
    let mut bytes = zip_of("x/data.pkl", b".");
    let end = bytes.len() - 22;
    let record = end as u64;
    let mut wide = b"PK\x06\x06".to_vec();
    wide.extend(44u64.to_le_bytes());
    wide.extend([0; 12]);
    for _ in 0..2 {
        wide.extend((1u64 << 40).to_le_bytes()); // the number of entries, twice
    }
    wide.extend([0; 16]);
    wide.extend(b"PK\x06\x07\0\0\0\0");
    wide.extend(record.to_le_bytes());
    wide.extend(1u32.to_le_bytes());
    bytes.splice(end..end, wide);
    let error = refusal(&bytes);
    assert!(error.contains("claims 1099511627776 entries"), "{error}");
    let at = bytes.len() - 22 - 12;
    bytes[at..at + 8].fill(0);
    assert!(refusal(&bytes).contains("no zip64 record"), "{}", refusal(&bytes));
}

#[test]
fn diff_names_what_differs() {
    let out = tempfile::tempdir().unwrap();
    let mut file = TensorFile::read(&folder().join("views_zip.pth")).unwrap();
    file.tensors.remove("rows");
    let other = Tensor::ones([2], (Kind::Int64, Device::Cpu));
    file.tensors.insert("extra".into(), other);
    let half = file.tensors["columns"].to_kind(Kind::Half);
    file.tensors.insert("columns".into(), half);
    let _ = file
        .tensors
        .get_mut("base")
        .unwrap()
        .view([-1])
        .narrow(0, 3, 2)
        .f_add_scalar_(-0.5)
        .unwrap();
    let flat = file.tensors["expanded"].reshape([-1]);
    file.tensors.insert("expanded".into(), flat);
    let path = out.path().join("b.safetensors");
    file.write(&path).unwrap();
    let b = path.to_str().unwrap();
    let (code, stdout, _) = visage(&["diff", "views_zip.pth", b]);
    assert_eq!(code, Some(1), "{stdout}");
    for line in [
        "base: 2 of 24 values differ, by at most 5e-1",
        "rows: only in views_zip.pth",
        "columns: dtype float32 and float16; the values agree",
        "expanded: shape [3, 6] and [18]",
        &format!("extra: only in {b}"),
        "3 tensors the same, 5 differ",
    ] {
        assert!(stdout.lines().any(|found| found == line), "{line}\n{stdout}");
    }
    let (_, stdout, _) = visage(&["diff", "views_zip.pth", b, "--json"]);
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["same"], 3);
    let base = &found["differences"][0];
    assert_eq!((base["what"].as_str(), base["max_abs"].as_f64()), (Some("values"), Some(0.5)));
}

#[test]
fn inspect_shows_a_tree_and_statistics() {
    let (code, stdout, _) = visage(&["inspect", "checkpoint_zip.pth"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.starts_with("checkpoint_zip.pth: PyTorch zip, 7 tensors, 22 values, "),
        "{stdout}"
    );
    for line in ["layer", "  0", "  1"] {
        assert!(stdout.lines().any(|found| found == line), "{line}: {stdout}");
    }
    assert!(stdout.contains("    weight [3, 2]"), "{stdout}");

    // views.base is 0, 1/8, ..., 23/8: mean 23/16, variance (24² - 1) / 12 / 64.
    let (_, stdout, _) = visage(&["inspect", "views_zip.pth", "--json"]);
    let found: Value = serde_json::from_str(&stdout).unwrap();
    let base = &found["tensors"][0];
    assert_eq!(base["name"], "base");
    assert_eq!((base["min"].as_f64(), base["max"].as_f64()), (Some(0.0), Some(2.875)));
    assert_eq!(base["mean"].as_f64(), Some(23.0 / 16.0));
    assert!((base["std"].as_f64().unwrap() - (575.0f64 / 12.0 / 64.0).sqrt()).abs() < 1e-12);
    assert_eq!((base["bytes"].as_u64(), base["not_finite"].as_u64()), (Some(96), Some(0)));
}

#[test]
fn names_in_a_file_do_not_steer_the_terminal() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("x.safetensors");
    let mut file = TensorFile::default();
    file.tensors.insert("\x1b]0;owned\x07layer.\u{9b}31mweight".into(), Tensor::from(1f32));
    file.write(&path).unwrap();
    for command in ["inspect", "diff"] {
        let other = folder().join("dtypes_zip.pth");
        let mut arguments = vec![command, path.to_str().unwrap()];
        arguments.extend((command == "diff").then(|| other.to_str().unwrap()));
        let (_, stdout, _) = visage(&arguments);
        assert!(!stdout.contains(['\x1b', '\x07', '\u{9b}']), "{stdout:?}");
        assert!(stdout.contains(r"\u001b]0;owned\u0007layer"), "{stdout}");
    }
}

#[test]
fn a_small_file_that_is_cut_while_it_is_open_keeps_its_values() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("x.safetensors");
    let mut file = TensorFile::default();
    file.tensors.insert("a".into(), Tensor::ones([1 << 20], (Kind::Float, Device::Cpu)));
    file.write(&path).unwrap();
    let opened = WeightFile::open(&path).unwrap();
    std::fs::File::create(&path).unwrap(); // a mapped page behind the end is a SIGBUS
    assert_eq!(opened.tensor(&opened.entries()[0]).unwrap(), file.tensors["a"]);
}
