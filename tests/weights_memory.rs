//! Loading a large file into a net takes the net's memory and little more; a small one is read as a whole
//! beside it.
//!
//! One test alone in its process, because it watches the process's memory.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

#[path = "common/memory.rs"]
mod memory;

use std::path::Path;

use memory::growth;
use tch::{Device, Kind, Tensor};
use visage::models::Params;

use visage::weights::{MAPPED, TensorFile, WeightFile, load};

const TENSORS: usize = 4;
const SIDE: i64 = 2048;
/// 16 MB a tensor.
const BYTES: usize = TENSORS * 4 * (SIDE * SIDE) as usize;

/// Bytes that make a file one that is mapped.
const HOLE: usize = MAPPED as usize;

fn options() -> (Kind, Device) {
    (Kind::Float, Device::Cpu)
}

/// Adds a tensor that the net has not, as a hole: it takes no time to write.
fn add_hole(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    header["hole"] =
        serde_json::json!({"dtype": "U8", "shape": [HOLE], "data_offsets": [BYTES, BYTES + HOLE]});
    let header = header.to_string();
    let all = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    std::fs::write(path, &all).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len((all.len() + HOLE) as u64).unwrap();
}

fn load_into_a_new_net(path: &Path) {
    let ((), params) = Params::collect(Device::Cpu, |root| {
        for index in 0..TENSORS {
            let _ = root.sub(index).buffer("weight", Tensor::zeros([SIDE, SIDE], options()));
        }
    });
    let file = WeightFile::open(path).unwrap();
    let options = load::LoadOptions { extras: &["hole"], ..load::LoadOptions::default() };
    let report = load::load_file(&params, &file, &options).unwrap();
    assert_eq!((report.matched, report.is_strict()), (TENSORS, true), "{report}");
    for (index, param) in params.iter().enumerate() {
        assert_eq!(param.tensor.mean(Kind::Float).double_value(&[]), index as f64);
    }
}

#[test]
fn a_file_and_its_net_are_never_both_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (pth, safetensors) = (folder.path().join("x.pth"), folder.path().join("x.safetensors"));
    let mut file = TensorFile::default();
    for index in 0..TENSORS {
        let tensor = Tensor::full([SIDE, SIDE], index as i64, options());
        file.tensors.insert(format!("{index}.weight"), tensor);
    }
    file.write_pth(&pth).unwrap();
    file.write(&safetensors).unwrap();
    drop(file);
    add_hole(&safetensors);
    // What may be in memory beside the net or the tensors, and what all tensors take.
    for (path, beside, all) in [(&pth, BYTES, BYTES), (&safetensors, 0, BYTES + HOLE)] {
        let Some(opened) = growth(|| drop(WeightFile::open(path).unwrap())) else {
            eprintln!("skipped: this system does not tell a process's peak memory");
            return;
        };
        assert!(opened < beside + (4 << 20), "opening {} took {opened} bytes", path.display());
        let loaded = growth(|| load_into_a_new_net(path)).unwrap();
        assert!(
            loaded < beside + BYTES * 13 / 10,
            "{}: {loaded} bytes for {BYTES}",
            path.display()
        );
        let read = growth(|| drop(TensorFile::read(path).unwrap())).unwrap();
        assert!(read < beside + all * 13 / 10, "{}: {read} bytes for {all}", path.display());
    }
}
