//! Euclidean distance.

/// Number of independent sums, for vector registers.
const LANES: usize = 16;

/// `|a - b|`, the Euclidean distance of two embeddings.
///
/// Computed from differences: `|a|^2 + |b|^2 - 2 a.b` cancels for close embeddings. Exactly symmetric.
pub fn euclidean(a: &[f32], b: &[f32]) -> f32 {
    squared(a, b).sqrt()
}

/// `|a - b|^2`. The order of summation is fixed.
pub(crate) fn squared(a: &[f32], b: &[f32]) -> f32 {
    debug_assert_eq!(a.len(), b.len(), "embeddings of one length");
    let mut lanes = [0f32; LANES];
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += (a - b) * (a - b);
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| (a - b) * (a - b)).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_three_four_five_triangle_and_a_long_row() {
        assert_eq!(euclidean(&[0., 0.], &[3., 4.]), 5.0);
        assert_eq!(euclidean(&[1.; 37], &[1.; 37]), 0.0);
        let (a, b): (Vec<f32>, Vec<f32>) = (0..100).map(|i| (i as f32, 2.0 * i as f32)).unzip();
        let naive = (0..100).map(|i| f64::from(i * i)).sum::<f64>().sqrt();
        assert!((f64::from(euclidean(&a, &b)) - naive).abs() < 1e-4);
        assert_eq!(euclidean(&a, &b).to_bits(), euclidean(&b, &a).to_bits());
    }
}
