//! Loading a file into a net takes the net's memory and little more, whatever the format.
//!
//! One test alone in its process, because it watches the process's memory.
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

#[path = "common/memory.rs"]
mod memory;

use std::path::Path;

use memory::growth;
use tch::{Device, Kind, Tensor};
use visage::models::Params;
use visage::weights::{TensorFile, WeightFile, load};

const TENSORS: usize = 4;
const SIDE: i64 = 2048;
/// 16 MB a tensor.
const BYTES: usize = TENSORS * 4 * (SIDE * SIDE) as usize;

fn options() -> (Kind, Device) {
    (Kind::Float, Device::Cpu)
}

fn load_into_a_new_net(path: &Path) {
    let ((), params) = Params::collect(Device::Cpu, |root| {
        for index in 0..TENSORS {
            let _ = root.sub(index).buffer("weight", Tensor::zeros([SIDE, SIDE], options()));
        }
    });
    let file = WeightFile::open(path).unwrap();
    let report = load::load_file(&params, &file, &load::LoadOptions::default()).unwrap();
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
    for path in [&pth, &safetensors] {
        let Some(opened) = growth(|| drop(WeightFile::open(path).unwrap())) else {
            eprintln!("skipped: this system does not tell a process's peak memory");
            return;
        };
        assert!(opened < 4 << 20, "opening {} took {opened} bytes", path.display());
        let loaded = growth(|| load_into_a_new_net(path)).unwrap();
        assert!(loaded < BYTES * 13 / 10, "{}: {loaded} bytes for {BYTES}", path.display());
        let read = growth(|| drop(TensorFile::read(path).unwrap())).unwrap();
        assert!(read < BYTES * 13 / 10, "{}: {read} bytes for {BYTES}", path.display());
    }
}
