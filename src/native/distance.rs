//! Distances to rounded rows.

use half::bf16;

unsafe extern "C" {
    fn visage_squared_distances(
        query: *const f32,
        rows: *const bf16,
        count: usize,
        dim: usize,
        out: *mut f32,
    );
}

/// `out[i] = |query - rows[i]|^2`, where `rows` is row-major `[N, D]`, `query` `[D]` and `out` `[N]`.
///
/// # Panics
/// When the lengths do not fit.
pub fn squared_to_rounded(query: &[f32], rows: &[bf16], out: &mut [f32]) {
    assert_eq!(rows.len(), query.len() * out.len(), "one distance per row");
    let (count, dim) = (out.len(), query.len());
    // SAFETY: the lengths were checked; bf16 is the 16 bits that the shim reads.
    unsafe {
        visage_squared_distances(query.as_ptr(), rows.as_ptr(), count, dim, out.as_mut_ptr());
    }
}
