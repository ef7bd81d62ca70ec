//! Strict loading: every tensor of the net must be in the file with its exact shape, and every tensor
//! of the file must be used; the report lists the exceptions. Nothing is broadcast, keys are renamed
//! only by the table in [`super::rename`], and the caller names what may be missing.

use std::collections::{HashMap, HashSet};
use std::fmt;

use tch::{Kind, Tensor};

use super::file::WeightFile;
use super::onnx_names;
use super::rename::RULES;
use super::tensor_file::TensorFile;
use crate::Result;
use crate::models::{Architecture, Params, is_below};

/// Prefix of a classifier head's keys in a model file (`classifier.weight`, `classifier.bias`).
pub const HEAD: &str = "classifier.";
/// Prefix of the training embeddings in a classifier's model file.
pub const GALLERY: &str = "gallery.";
/// Prefixes of keys in a model file that are not the trunk's: a classifier's, and a pair network's head.
pub const BESIDE_TRUNK: [&str; 3] = [HEAD, GALLERY, "head."];

/// What is wrong with tensors that make every answer NaN.
pub const NOT_FINITE: &str =
    "not finite (NaN or infinity, perhaps of a training run that diverged)";

/// Keys of each kind that a printed report shows; its fields have all.
const EXAMPLES: usize = 3;

/// The result of loading, or why nothing was changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors found and copied.
    pub matched: usize,
    /// Tensors whose dtype was converted to the net's, as `float16 to float32 (224)`.
    pub converted: usize,
    /// Renamed keys: (in the file, in the net).
    pub renamed: Vec<(String, String)>,
    /// The notes of [`WeightFile::notes`].
    pub notes: Vec<String>,
    /// Keys of the net that were not loaded, as the caller allowed: missing or of another shape.
    pub allowed: Vec<String>,
    /// Missing keys: in the net but not in the file.
    pub missing: Vec<String>,
    /// Unexpected keys: in the file but not in the net.
    pub unused: Vec<String>,
    /// Keys with another shape: (key, the file's, the net's).
    pub wrong_shape: Vec<(String, Vec<i64>, Vec<i64>)>,
    /// Keys of the file whose tensors hold NaN or infinities in the net's dtype.
    pub not_finite: Vec<String>,
}

impl LoadReport {
    /// Whether everything matched, except what the caller allowed to be missing, and is finite.
    pub fn is_strict(&self) -> bool {
        self.missing.is_empty()
            && self.unused.is_empty()
            && self.wrong_shape.is_empty()
            && self.not_finite.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors matched", self.matched)?;
        if self.converted > 0 {
            write!(f, " ({} converted to the net's dtype)", self.converted)?;
        }
        for note in &self.notes {
            write!(f, "\n  {note}")?;
        }
        if let Some((from, to)) = self.renamed.first() {
            write!(f, "\n  {} keys renamed, such as {from} to {to}", self.renamed.len())?;
        }
        for (what, names) in [
            ("allowed to be missing", &self.allowed),
            ("missing from the file", &self.missing),
            ("not used by the net", &self.unused),
            (NOT_FINITE, &self.not_finite),
        ] {
            if !names.is_empty() {
                let shown = names.iter().take(EXAMPLES).map(String::as_str).collect::<Vec<_>>();
                let more = if names.len() > EXAMPLES { ", ..." } else { "" };
                write!(f, "\n  {} {what}: {}{more}", names.len(), shown.join(", "))?;
            }
        }
        for (name, file, net) in self.wrong_shape.iter().take(EXAMPLES) {
            write!(f, "\n  {name} has shape {file:?} in the file, {net:?} in the net")?;
        }
        match self.wrong_shape.len() {
            0..=EXAMPLES => Ok(()),
            all => write!(f, "\n  {} more have another shape", all - EXAMPLES),
        }
    }
}

/// The keys that loading may ignore, by prefix: `classifier`, `gallery.`.
#[derive(Debug, Default, Clone, Copy)]
pub struct LoadOptions<'a> {
    /// Prefixes of keys in the file that are ignored (a head beside the trunk).
    pub extras: &'a [&'a str],
    /// Prefixes, on whole path components, of keys in the net that the file may lack or have in
    /// another shape (`--allow-missing classifier`); the net keeps what it has there.
    pub allow_missing: &'a [String],
}

/// The architecture whose trunk has as many parameters as these tensors (key, number of values),
/// without running statistics and a classifier: the number differs between architectures.
pub fn looks_like<'t>(tensors: impl Iterator<Item = (&'t str, usize)>) -> Option<Architecture> {
    let statistics = ["running_mean", "running_var", "num_batches_tracked"];
    let trainable: Vec<_> = tensors
        .filter(|(key, _)| !statistics.iter().any(|end| key.ends_with(end)))
        .filter(|(key, _)| !key.starts_with(GALLERY))
        .collect();
    Architecture::ALL.into_iter().find(|architecture| {
        let info = architecture.info();
        let heads = BESIDE_TRUNK.iter().chain(info.classifier);
        let is_head = |key: &str| heads.clone().any(|head| key.starts_with(head));
        let trunk = trainable.iter().filter(|(key, _)| !is_head(key));
        trunk.map(|(_, count)| count).sum::<usize>() == info.parameters
    })
}

impl LoadOptions<'_> {
    fn allows(&self, key: &str) -> bool {
        self.allow_missing.iter().any(|prefix| is_below(key, prefix))
    }
}

/// Copies the tensors of `file` into `params`; if there is any mismatch, nothing is changed.
///
/// Buffers named `num_batches_tracked` may be missing, as in PyTorch. Floating-point dtypes are
/// converted to the net's; the report counts them. Keys that start with one of `extras` (such as a
/// head beside the trunk) are ignored.
pub fn load(params: &Params, file: &TensorFile, extras: &[&str]) -> LoadReport {
    load_tensors(params, file, &LoadOptions { extras, allow_missing: &[] })
}

fn load_tensors(params: &Params, file: &TensorFile, options: &LoadOptions) -> LoadReport {
    let of_file = |(name, tensor): (&String, &Tensor)| TensorInfo {
        name: name.clone(),
        shape: tensor.size(),
        kind: tensor.kind(),
    };
    let files = file.tensors.iter().map(of_file);
    let (mut report, copies) = plan(params, files, options);
    let broken = copies.iter().filter(|(to, from)| {
        let tensor = file.tensors.get(from);
        tensor.is_some_and(|tensor| !is_finite(&tensor.to_kind(to.kind())))
    });
    report.not_finite = broken.map(|(_, from)| from.clone()).collect();
    if report.is_strict() {
        tch::no_grad(|| {
            for (to, from) in copies {
                if let Some(from) = file.tensors.get(&from) {
                    to.shallow_clone().copy_(from);
                }
            }
        });
    }
    report
}

/// As [`load`], but from the disk, one tensor at a time, without a second copy in memory. An ONNX file whose
/// tensors have other names is read as a whole, its layers in their order.
///
/// # Errors
/// A checksum differs; nothing is changed then. A mismatch is not an error: it is in the report, and
/// nothing is changed either.
pub fn load_file(params: &Params, file: &WeightFile, options: &LoadOptions) -> Result<LoadReport> {
    if let Some(renamed) = onnx_names::state_dict(file, params)? {
        let mut report = load_tensors(params, &renamed, options);
        report.notes = file.notes().to_vec();
        report.notes.push(
            "layers of the ONNX file taken in their order; their tensors have other names".into(),
        );
        return Ok(report);
    }
    let entries = file.entries().iter();
    let found = entries.map(|entry| TensorInfo {
        name: entry.name.clone(),
        shape: entry.shape.clone(),
        kind: entry.kind,
    });
    let (mut report, copies) = plan(params, found, options);
    report.notes = file.notes().to_vec();
    if report.is_strict() {
        file.verify()?;
        for (to, from) in &copies {
            if let Some(entry) = file.get(from) {
                let finite = file.all(entry, |part| is_finite(&part.to_kind(to.kind())))?;
                report.not_finite.extend((!finite).then(|| from.clone()));
            }
        }
    }
    if report.is_strict() {
        for (to, from) in copies {
            if let Some(entry) = file.get(&from) {
                file.copy_into(entry, to)?;
            }
        }
    }
    Ok(report)
}

/// Whether every value of a tensor is finite.
pub fn is_finite(tensor: &Tensor) -> bool {
    // Zero times NaN or infinity is NaN; faster than `isfinite`.
    tensor.multiply_scalar(0).sum(Kind::Float).double_value(&[]) == 0.0
}

/// A tensor of the file: what is compared with the net.
struct TensorInfo {
    name: String,
    shape: Vec<i64>,
    kind: Kind,
}

/// Maps the file's keys to the net's tensors.
fn plan<'p>(
    params: &'p Params,
    found: impl Iterator<Item = TensorInfo>,
    options: &LoadOptions,
) -> (LoadReport, Vec<(&'p Tensor, String)>) {
    let mut report = LoadReport::default();
    let known: HashSet<&str> = params.iter().map(|param| param.name.as_str()).collect();
    let (at_home, strangers): (Vec<_>, Vec<_>) =
        found.partition(|found| known.contains(found.name.as_str()));
    let mut by_key: HashMap<String, TensorInfo> =
        at_home.into_iter().map(|found| (found.name.clone(), found)).collect();
    for stranger in strangers {
        let renamed = RULES
            .iter()
            .filter_map(|rule| (rule.apply)(&stranger.name))
            .find(|key| known.contains(key.as_str()) && !by_key.contains_key(key));
        if let Some(key) = renamed {
            report.renamed.push((stranger.name.clone(), key.clone()));
            by_key.insert(key, stranger);
        } else if !options.extras.iter().any(|extra| stranger.name.starts_with(extra)) {
            report.unused.push(stranger.name);
        }
    }
    let mut copies = Vec::new();
    for param in params.iter() {
        match by_key.remove(&param.name) {
            None if param.name.ends_with("num_batches_tracked") => {}
            None if options.allows(&param.name) => report.allowed.push(param.name.clone()),
            None => report.missing.push(param.name.clone()),
            Some(found) if found.shape != param.tensor.size() => {
                if options.allows(&param.name) {
                    report.allowed.push(param.name.clone());
                } else {
                    let shape = (param.name.clone(), found.shape, param.tensor.size());
                    report.wrong_shape.push(shape);
                }
            }
            Some(found) => {
                report.matched += 1;
                report.converted += usize::from(found.kind != param.tensor.kind());
                copies.push((&param.tensor, found.name));
            }
        }
    }
    (report, copies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn net() -> Params {
        let float = (Kind::Float, Device::Cpu);
        let ((), params) = Params::collect(Device::Cpu, |root| {
            let _ = root.sub("a").parameter("weight", Tensor::zeros([2, 2], float));
            let _ = root.sub("a").parameter("bias", Tensor::zeros([2], float));
            let _ = root
                .sub("n")
                .buffer("num_batches_tracked", Tensor::zeros([], (Kind::Int64, Device::Cpu)));
        });
        params
    }

    fn file(entries: &[(&str, Tensor)]) -> TensorFile {
        let mut file = TensorFile::default();
        for (name, tensor) in entries {
            file.tensors.insert((*name).into(), tensor.shallow_clone());
        }
        file
    }

    #[test]
    fn half_precision_is_converted_and_counted() {
        let params = net();
        let half = Tensor::from_slice(&[1f32, 2., 3., 4.]).to_kind(Kind::Half).view([2, 2]);
        let report = load(
            &params,
            &file(&[("a.weight", half), ("a.bias", Tensor::ones([2], (Kind::Float, Device::Cpu)))]),
            &[],
        );
        assert!(report.is_strict(), "{report}");
        assert_eq!((report.matched, report.converted), (2, 1));
        let weight = params.iter().next().unwrap();
        assert_eq!(weight.tensor.kind(), Kind::Float);
        assert_eq!(f64::try_from(weight.tensor.sum(Kind::Float)).unwrap(), 10.0);
    }

    #[test]
    fn tensors_that_are_not_finite_are_named_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        // 1e300 is finite, but not in the net's float32.
        for wrong in [f64::NAN, f64::NEG_INFINITY, 1e300] {
            let params = net();
            let weight = Tensor::from_slice(&[1.0, 2.0, wrong, 4.0]).view([2, 2]);
            let bias = Tensor::ones([2], (Kind::Float, Device::Cpu));
            let file = file(&[("a.weight", weight), ("a.bias", bias)]);
            file.write(&path).unwrap();
            let opened = WeightFile::open(&path).unwrap();
            let reports = [
                load(&params, &file, &[]),
                load_file(&params, &opened, &LoadOptions::default()).unwrap(),
            ];
            for report in reports {
                assert!(!report.is_strict());
                assert!(report.to_string().contains("1 not finite (NaN"), "{report}");
                assert_eq!(report.not_finite, ["a.weight"]);
                let sum: f64 =
                    params.iter().map(|p| p.tensor.sum(Kind::Double).double_value(&[])).sum();
                assert_eq!(sum, 0.0);
            }
        }
    }

    #[test]
    fn a_report_shows_three_keys_of_each_kind() {
        let keys = |count: usize| (0..count).map(|index| format!("key{index}")).collect();
        let wrong_shape = (0..5).map(|index| (format!("w{index}"), vec![1], vec![2])).collect();
        let report =
            LoadReport { missing: keys(3), unused: keys(4), wrong_shape, ..Default::default() };
        let text = report.to_string();
        assert!(text.contains("3 missing from the file: key0, key1, key2\n"), "{text}");
        assert!(text.contains("4 not used by the net: key0, key1, key2, ...\n"), "{text}");
        assert!(text.contains("w2 has") && !text.contains("w3"), "{text}");
        assert!(text.ends_with("2 more have another shape"), "{text}");
    }

    #[test]
    fn everything_that_does_not_fit_is_listed_and_nothing_is_changed() {
        let params = net();
        // [2] would broadcast into [2, 2]; it must be refused instead.
        let row = Tensor::ones([2], (Kind::Float, Device::Cpu));
        let report =
            load(&params, &file(&[("a.weight", row.shallow_clone()), ("b.weight", row)]), &["c."]);
        assert_eq!(report.missing, ["a.bias"]);
        assert_eq!(report.unused, ["b.weight"]);
        assert_eq!(report.wrong_shape, [("a.weight".to_owned(), vec![2], vec![2, 2])]);
        let text = report.to_string();
        for part in ["a.bias", "b.weight", "shape [2] in the file, [2, 2] in the net"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(
            f64::try_from(params.iter().next().unwrap().tensor.sum(Kind::Float)).unwrap(),
            0.0
        );
    }

    #[test]
    fn only_what_the_caller_names_may_be_missing_or_of_another_shape() {
        let params = net();
        let other = Tensor::ones([3, 2], (Kind::Float, Device::Cpu));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        file(&[("a.weight", other), ("head.w", Tensor::from(1f32))]).write(&path).unwrap();
        let file = WeightFile::open(&path).unwrap();
        let with = |allow: &[&str]| {
            let allow: Vec<String> = allow.iter().map(|&prefix| prefix.into()).collect();
            let options = LoadOptions { extras: &["head."], allow_missing: &allow };
            load_file(&params, &file, &options).unwrap()
        };
        let allowed = with(&["a"]);
        assert!(allowed.is_strict(), "{allowed}");
        assert_eq!(allowed.allowed, ["a.weight", "a.bias"]);
        // Prefixes end at the borders of components.
        assert!(!with(&["a.w", "aa"]).is_strict());
        assert_eq!(with(&["a.bias"]).wrong_shape.len(), 1);
    }

    #[test]
    fn keys_of_old_files_are_renamed_and_reported() {
        let float = (Kind::Float, Device::Cpu);
        let ((), params) = Params::collect(Device::Cpu, |root| {
            let _ =
                root.sub("denselayer1").sub("norm1").parameter("weight", Tensor::zeros([2], float));
        });
        let old = "denselayer1.norm.1.weight";
        let report = load(&params, &file(&[(old, Tensor::ones([2], float))]), &[]);
        assert!(report.is_strict(), "{report}");
        assert_eq!(report.renamed, [(old.to_owned(), "denselayer1.norm1.weight".to_owned())]);
        assert_eq!(params.iter().next().unwrap().tensor.sum(Kind::Float).double_value(&[]), 2.0);
        // With both spellings the old one is left over, not silently preferred.
        let both = file(&[
            (old, Tensor::ones([2], float)),
            ("denselayer1.norm1.weight", Tensor::ones([2], float)),
        ]);
        assert_eq!(load(&params, &both, &[]).unused, [old]);
    }
}
