//! Random generators that depend on a seed, a purpose and a step only.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Purposes of random numbers, which have independent streams.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Split = 1,
    Sampler = 2,
    Augment = 3,
    Pairs = 4,
    People = 5,
    Triplets = 6,
    Scored = 7,
}

/// The generator of (seed, purpose, step): a resumed run draws the same numbers as an uninterrupted
/// one.
pub(super) fn generator(seed: u64, purpose: Purpose, step: u64) -> StdRng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&step.to_le_bytes());
    StdRng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn each_of_seed_purpose_and_step_makes_a_stream_of_its_own() {
        let draw = |seed, purpose, step| generator(seed, purpose, step).next_u64();
        let first = draw(1, Purpose::Split, 0);
        assert_eq!(first, draw(1, Purpose::Split, 0));
        for other in
            [draw(2, Purpose::Split, 0), draw(1, Purpose::Sampler, 0), draw(1, Purpose::Split, 1)]
        {
            assert_ne!(first, other);
        }
    }
}
