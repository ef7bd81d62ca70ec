//! Hamming distances of many short codes, with the processor's vector instructions where it has them.

/// 64-bit words of a code.
pub const WORDS: usize = 5;
/// Codes of a [`Block`].
pub const LANES: usize = 48;
/// Words after which most codes are already too different.
const FIRST: usize = 3;

/// A code of up to 320 bits.
pub type Code = [u64; WORDS];
/// Codes side by side: word `w` of code `l` is `block[w][l]`.
pub type Block = [[u64; LANES]; WORDS];

/// Appends to `found` the number of each code that differs in at most `bits` bits from one of the block.
pub fn near(codes: &[Code], block: &Block, bits: u64, found: &mut Vec<usize>) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vpopcntdq") {
            // SAFETY: the processor has these instructions.
            return unsafe { avx512(codes, block, bits, found) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
            // SAFETY: the processor has these instructions.
            return unsafe { avx2(codes, block, bits, found) };
        }
    }
    anywhere(codes, block, bits, found);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vpopcntdq,popcnt")]
fn avx512(codes: &[Code], block: &Block, bits: u64, found: &mut Vec<usize>) {
    anywhere(codes, block, bits, found);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,popcnt")]
fn avx2(codes: &[Code], block: &Block, bits: u64, found: &mut Vec<usize>) {
    anywhere(codes, block, bits, found);
}

/// Compiled into each of its callers, for the instructions of each.
#[inline(always)]
fn anywhere(codes: &[Code], block: &Block, bits: u64, found: &mut Vec<usize>) {
    for (number, code) in codes.iter().enumerate() {
        let mut distances = [0; LANES];
        add(&mut distances, &code[..FIRST], &block[..FIRST]);
        if least(&distances) > bits {
            continue;
        }
        add(&mut distances, &code[FIRST..], &block[FIRST..]);
        if least(&distances) <= bits {
            found.push(number);
        }
    }
}

#[inline(always)]
fn add(distances: &mut [u64; LANES], code: &[u64], block: &[[u64; LANES]]) {
    for (word, lanes) in code.iter().zip(block) {
        for (distance, lane) in distances.iter_mut().zip(lanes) {
            *distance += u64::from((word ^ lane).count_ones());
        }
    }
}

#[inline(always)]
fn least(distances: &[u64; LANES]) -> u64 {
    distances.iter().fold(u64::MAX, |least, &distance| least.min(distance))
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn every_processor_s_search_finds_what_a_loop_over_bits_finds() {
        let mut generator = StdRng::seed_from_u64(4);
        let mut block: Block = [[0; LANES]; WORDS];
        block.iter_mut().flatten().for_each(|word| *word = generator.random());
        // Codes at 0 to 79 bits from one of the block, and random ones.
        let codes: Vec<Code> = (0..400)
            .map(|number| {
                let mut code: Code = std::array::from_fn(|word| block[word][number % LANES]);
                (0..number % 80).for_each(|bit| code[bit * 4 / 64] ^= 1 << (bit * 4 % 64));
                if number % 7 == 0 { std::array::from_fn(|_| generator.random()) } else { code }
            })
            .collect();
        let distance = |code: &Code, lane: usize| -> u32 {
            (0..WORDS).map(|word| (code[word] ^ block[word][lane]).count_ones()).sum()
        };
        for bits in [0, 1, 52, 320] {
            let is_near = |&number: &usize| {
                (0..LANES).any(|lane| u64::from(distance(&codes[number], lane)) <= bits)
            };
            let wanted: Vec<usize> = (0..codes.len()).filter(is_near).collect();
            let (mut found, mut plain) = (Vec::new(), Vec::new());
            near(&codes, &block, bits, &mut found);
            anywhere(&codes, &block, bits, &mut plain);
            assert_eq!((&found, &plain), (&wanted, &wanted), "{bits}");
            assert!(!found.is_empty() && (bits == 320) == (found.len() == codes.len()));
        }
    }
}
