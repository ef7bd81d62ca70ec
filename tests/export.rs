//! Exported files compute what the model does: TorchScript run by libtorch, ONNX taken apart here and
//! run by ONNX Runtime where a Python has it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, clippy::print_stderr)] // a test may panic and talk

#[path = "common/python.rs"]
mod python;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::process::Command;

use protobuf::CodedInputStream;
use protobuf::wire_format::WireType;
use python::python;
use tch::{CModule, Device, Kind, Tensor};
use visage::export::{BatchSize, Export};
use visage::models::{Architecture, Backbone, Mode};
use visage::weights::{Source, WeightFile};

fn openface() -> Backbone {
    let backbone = Backbone::new(Architecture::OpenFace, Device::Cpu);
    let source = Source::resolve(None, Architecture::OpenFace).unwrap();
    source.load_into(&backbone).unwrap();
    backbone
}

/// Noise from a formula: libtorch's generator is shared with the tests that run beside this one.
fn pictures(count: i64) -> Tensor {
    let places = Tensor::arange(count * 3 * 96 * 96, (Kind::Double, Device::Cpu));
    let noise = ((places * 12.9898).sin() * 43758.5453).frac().abs();
    noise.to_kind(Kind::Float).view([count, 3, 96, 96])
}

fn furthest(a: &Tensor, b: &Tensor) -> f64 {
    f64::try_from((a - b).abs().max()).unwrap()
}

#[test]
fn torchscript_gives_the_same_embeddings_for_any_batch_and_keeps_the_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("openface.pt");
    let backbone = openface();
    let names: BTreeSet<_> = backbone.params.iter().map(|param| param.name.clone()).collect();
    std::fs::write(&path, Export::trunk(backbone).unwrap().to_torchscript().unwrap()).unwrap();

    let module = CModule::load(&path).unwrap();
    let backbone = openface();
    for count in [1, 4] {
        let found = module.forward_ts(&[pictures(count)]).unwrap();
        let wanted = backbone.embed(&pictures(count), Mode::EVAL);
        assert_eq!(found.size(), [count, 128]);
        assert!(furthest(&found, &wanted) < 1e-6);
    }
    // Our own reader finds the trunk in it, and it fits.
    let file = WeightFile::open(&path).unwrap();
    let held: BTreeSet<_> = file.entries().iter().map(|entry| entry.name.clone()).collect();
    assert!(names.is_subset(&held), "{:?}", names.difference(&held));

    let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
    let name = archive.file_names().find(|name| name.ends_with("extra/visage.json"));
    let name = name.unwrap().to_owned();
    let mut text = String::new();
    archive.by_name(&name).unwrap().read_to_string(&mut text).unwrap();
    let about: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(about["architecture"], "openface");
    assert_eq!(about["input"]["shape"], serde_json::json!(["N", 3, 96, 96]));
}

/// Every family can be recorded and translated; `to_torchscript` holds the result against the model.
#[test]
fn all_families_can_be_exported() {
    for architecture in [
        Architecture::FaceNet,
        Architecture::IResNet18,
        Architecture::MobileFaceNet,
        Architecture::Vgg11Bn,
        Architecture::DenseNet121,
        Architecture::InceptionV3,
    ] {
        let export = Export::trunk(Backbone::new(architecture, Device::Cpu)).unwrap();
        let name = architecture.name();
        let archive = export.to_torchscript().unwrap_or_else(|error| panic!("{name}: {error}"));
        let onnx =
            export.to_onnx(BatchSize::Dynamic).unwrap_or_else(|error| panic!("{name}: {error}"));
        let floats = 4 * architecture.info().parameters;
        assert!(archive.len() > floats && onnx.len() > floats, "{name}");
        assert!(onnx.len() < floats + floats / 20, "{name}: {} bytes", onnx.len());
    }
}

#[test]
fn a_model_whose_answers_are_not_numbers_is_not_exported() {
    let backbone = openface();
    let mut first = backbone.params.iter().next().unwrap().tensor.shallow_clone();
    let _ = tch::no_grad(|| first.fill_(f64::NAN));
    let error = Export::trunk(backbone).unwrap().to_torchscript().unwrap_err().to_string();
    assert!(error.contains("finite"), "{error}");
}

/// The fields of a protobuf message by number: integers, and bytes of what is not an integer.
#[derive(Default)]
struct Fields {
    ints: BTreeMap<u32, Vec<i64>>,
    bytes: BTreeMap<u32, Vec<Vec<u8>>>,
}

impl Fields {
    fn of(bytes: &[u8]) -> Self {
        let mut input = CodedInputStream::from_bytes(bytes);
        let mut fields = Self::default();
        while !input.eof().unwrap() {
            let (field, kind) = input.read_tag().unwrap().unpack();
            match kind {
                WireType::WireTypeVarint => {
                    fields.ints.entry(field).or_default().push(input.read_int64().unwrap());
                }
                WireType::WireTypeLengthDelimited => {
                    fields.bytes.entry(field).or_default().push(input.read_bytes().unwrap());
                }
                other => input.skip_field(other).unwrap(),
            }
        }
        fields
    }

    fn int(&self, field: u32) -> i64 {
        self.ints[&field][0]
    }

    fn all(&self, field: u32) -> Vec<Self> {
        self.bytes.get(&field).into_iter().flatten().map(|bytes| Self::of(bytes)).collect()
    }

    fn texts(&self, field: u32) -> Vec<String> {
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        self.bytes.get(&field).into_iter().flatten().map(text).collect()
    }

    fn text(&self, field: u32) -> String {
        self.texts(field).remove(0)
    }

    /// The sides in a `ValueInfoProto`: a number, or -1 for a named one.
    fn sides(&self) -> Vec<i64> {
        let tensor = self.all(2).remove(0).all(1).remove(0);
        assert_eq!(tensor.int(1), 1, "not float32");
        let sides = tensor.all(2).remove(0).all(1);
        sides.iter().map(|side| side.ints.get(&1).map_or(-1, |values| values[0])).collect()
    }
}

#[test]
fn onnx_has_every_operation_tensor_and_port() {
    let model =
        Fields::of(&Export::trunk(openface()).unwrap().to_onnx(BatchSize::Dynamic).unwrap());
    let backbone = openface();
    assert_eq!(model.all(8)[0].int(2), 18, "opset");
    let metadata = &model.all(14)[0];
    assert_eq!(metadata.text(1), "visage");
    let about: serde_json::Value = serde_json::from_str(&metadata.text(2)).unwrap();
    assert_eq!(about["embedding"]["length"], 128);

    let graph = model.all(7).remove(0);
    let (input, output) = (&graph.all(11)[0], &graph.all(12)[0]);
    assert_eq!((input.text(1).as_str(), input.sides()), ("pictures", vec![-1, 3, 96, 96]));
    assert_eq!((output.text(1).as_str(), output.sides()), ("embedding", vec![-1, 128]));

    // Every tensor that evaluation needs, under its key, with its shape and its bytes.
    let initializers = graph.all(5);
    let mut known = BTreeSet::from(["pictures".to_owned()]);
    let mut shapes = BTreeMap::new();
    for tensor in &initializers {
        assert!(known.insert(tensor.text(8)), "{} twice", tensor.text(8));
        let shape = tensor.ints.get(&1).cloned().unwrap_or_default();
        let width = if tensor.int(2) == 1 { 4 } else { 8 };
        let bytes = tensor.bytes[&9][0].len() as i64;
        assert_eq!(bytes, width * shape.iter().product::<i64>(), "{}", tensor.text(8));
        shapes.insert(tensor.text(8), shape);
    }
    for param in backbone.params.iter().filter(|p| !p.name.ends_with("num_batches_tracked")) {
        assert_eq!(shapes.get(&param.name), Some(&param.tensor.size()), "{}", param.name);
    }

    // Operations come after what they need. The counts are nn4.small2's: 37 convolutions, each with
    // its normalisation and ReLU, and two more inside the LRN layers; 7 blocks; 6 maxima.
    let mut kinds = BTreeMap::<String, usize>::new();
    for node in graph.all(1) {
        for name in node.texts(1) {
            assert!(known.contains(&name), "{} takes {name} before it is there", node.text(4));
        }
        assert!(known.insert(node.text(2)));
        *kinds.entry(node.text(4)).or_default() += 1;
    }
    assert!(known.contains("embedding"));
    assert_eq!([kinds["Conv"], kinds["BatchNormalization"], kinds["Relu"]], [39, 37, 37]);
    assert_eq!([kinds["Concat"], kinds["MaxPool"], kinds["Gemm"]], [7, 6, 1]);

    let fixed =
        Fields::of(&Export::trunk(openface()).unwrap().to_onnx(BatchSize::Fixed(8)).unwrap());
    let graph = fixed.all(7).remove(0);
    assert_eq!(graph.all(11)[0].sides(), [8, 3, 96, 96]);
    assert_eq!(graph.all(12)[0].sides(), [8, 128]);
}

const RUN_ONNX: &str = "
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
pictures = numpy.fromfile(sys.argv[2], numpy.float32).reshape(-1, 3, 96, 96)
session.run(['embedding'], {'pictures': pictures})[0].tofile(sys.argv[3])
";

#[test]
fn onnx_runtime_gives_the_same_embeddings() {
    let Some(python) = python("numpy, onnxruntime") else { return };
    let folder = tempfile::tempdir().unwrap();
    let [model, input, output] = ["m.onnx", "in", "out"].map(|name| folder.path().join(name));
    std::fs::write(&model, Export::trunk(openface()).unwrap().to_onnx(BatchSize::Dynamic).unwrap())
        .unwrap();
    let backbone = openface();
    for count in [1, 3] {
        let values: Vec<f32> = Vec::try_from(pictures(count).flatten(0, -1)).unwrap();
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        std::fs::write(&input, bytes).unwrap();
        let mut run = Command::new(&python);
        let ran = run.args(["-c", RUN_ONNX]).args([&model, &input, &output]).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let bytes = std::fs::read(&output).unwrap();
        let (values, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|four| f32::from_le_bytes(*four)).collect();
        let found = Tensor::from_slice(&values).view([count, 128]);
        let difference = furthest(&found, &backbone.embed(&pictures(count), Mode::EVAL));
        assert!(difference < 1e-5, "{difference}");
    }
}
