//! NumPy arrays.

use std::io::Write;

use npyz::WriterBuilder;

/// Writes an array that `numpy.load` opens, from its values in row-major order.
///
/// # Errors
/// Those of `out`.
pub fn write<T: npyz::AutoSerialize + Copy>(
    out: impl Write,
    shape: &[u64],
    values: &[T],
) -> std::io::Result<()> {
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(shape).writer(out).begin_nd()?;
    writer.extend(values.iter().copied())?;
    writer.finish()
}
