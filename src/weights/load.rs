//! Strict loading: every tensor of the net is found in the file with its exact shape, every tensor
//! of the file is used, or the report says which is not. Nothing is broadcast.

use std::fmt;

use tch::Tensor;

use super::TensorFile;
use crate::models::Params;

/// What a load did, and what kept it from doing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors found and copied.
    pub matched: usize,
    /// Tensors whose dtype was converted to the net's, as `float16 to float32 (224)`.
    pub converted: usize,
    /// Keys that the net has and the file lacks.
    pub missing: Vec<String>,
    /// Keys that the file has and the net does not know.
    pub unused: Vec<String>,
    /// Keys with another shape: (key, the file's, the net's).
    pub wrong_shape: Vec<(String, Vec<i64>, Vec<i64>)>,
}

impl LoadReport {
    /// Everything fitted.
    pub fn is_strict(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.wrong_shape.is_empty()
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors matched", self.matched)?;
        if self.converted > 0 {
            write!(f, " ({} converted to the net's dtype)", self.converted)?;
        }
        for (what, names) in
            [("missing from the file", &self.missing), ("not used by the net", &self.unused)]
        {
            if !names.is_empty() {
                write!(f, "\n  {} {what}: {}", names.len(), names.join(", "))?;
            }
        }
        for (name, file, net) in &self.wrong_shape {
            write!(f, "\n  {name} has shape {file:?} in the file, {net:?} in the net")?;
        }
        Ok(())
    }
}

/// Copies the tensors of `file` into `params`; where anything does not fit, nothing is changed.
///
/// Buffers named `num_batches_tracked` may be missing: PyTorch adds them itself to old files.
/// Floating-point dtypes are converted to the net's; the report counts them. Keys that start with
/// one of `extras` (a head, say, that a model file carries beside the trunk) are not the net's
/// business and are passed over.
pub fn load(params: &Params, file: &TensorFile, extras: &[&str]) -> LoadReport {
    let mut report = LoadReport::default();
    let mut copies: Vec<(&Tensor, &Tensor)> = Vec::new();
    for param in params.iter() {
        match file.tensors.get(&param.name) {
            None if param.name.ends_with("num_batches_tracked") => {}
            None => report.missing.push(param.name.clone()),
            Some(found) if found.size() != param.tensor.size() => {
                report.wrong_shape.push((param.name.clone(), found.size(), param.tensor.size()));
            }
            Some(found) => {
                report.matched += 1;
                report.converted += usize::from(found.kind() != param.tensor.kind());
                copies.push((&param.tensor, found));
            }
        }
    }
    let known: std::collections::HashSet<_> = params.iter().map(|p| p.name.as_str()).collect();
    report.unused = file
        .tensors
        .keys()
        .filter(|name| !known.contains(name.as_str()))
        .filter(|name| !extras.iter().any(|extra| name.starts_with(extra)))
        .cloned()
        .collect();
    if report.is_strict() {
        tch::no_grad(|| {
            for (to, from) in copies {
                to.shallow_clone().copy_(from);
            }
        });
    }
    report
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
}
