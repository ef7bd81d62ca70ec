//! The supported dtypes, with their names in each file format.

use safetensors::tensor::Dtype;
use tch::Kind;

/// A dtype and its names.
pub(super) struct DtypeRow {
    /// libtorch's kind.
    pub kind: Kind,
    /// PyTorch's, as `torch.float32`, which is also what reports say.
    pub name: &'static str,
    /// safetensors'.
    pub safetensors: Dtype,
    /// The storage class in a pickle, as `torch.FloatStorage`.
    pub storage: &'static str,
    /// NumPy's type code and width, as `f4`; bfloat16 has none.
    pub numpy: Option<&'static str>,
}

const fn row(
    kind: Kind,
    name: &'static str,
    safetensors: Dtype,
    storage: &'static str,
    numpy: Option<&'static str>,
) -> DtypeRow {
    DtypeRow { kind, name, safetensors, storage, numpy }
}

const ROWS: [DtypeRow; 10] = [
    row(Kind::Bool, "bool", Dtype::BOOL, "BoolStorage", Some("b1")),
    row(Kind::Uint8, "uint8", Dtype::U8, "ByteStorage", Some("u1")),
    row(Kind::Int8, "int8", Dtype::I8, "CharStorage", Some("i1")),
    row(Kind::Int16, "int16", Dtype::I16, "ShortStorage", Some("i2")),
    row(Kind::Int, "int32", Dtype::I32, "IntStorage", Some("i4")),
    row(Kind::Int64, "int64", Dtype::I64, "LongStorage", Some("i8")),
    row(Kind::Half, "float16", Dtype::F16, "HalfStorage", Some("f2")),
    row(Kind::BFloat16, "bfloat16", Dtype::BF16, "BFloat16Storage", None),
    row(Kind::Float, "float32", Dtype::F32, "FloatStorage", Some("f4")),
    row(Kind::Double, "float64", Dtype::F64, "DoubleStorage", Some("f8")),
];

/// The first row that `fits`.
pub(super) fn find(fits: impl Fn(&DtypeRow) -> bool) -> Option<&'static DtypeRow> {
    ROWS.iter().find(|row| fits(row))
}

/// PyTorch's name of a dtype, without the `torch.`: `float32`.
pub fn name(kind: Kind) -> &'static str {
    find(|row| row.kind == kind).map_or("an unsupported dtype", |row| row.name)
}

/// The names of all rows, for error texts.
pub(super) fn names() -> String {
    ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ")
}
