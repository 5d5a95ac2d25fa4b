//! Octets that are nearly right.

use fastrand::Rng;

/// What fields of lengths, counts and numbers are set to, beside what is near the number of octets.
const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];

/// The most octets of noise, and of one insertion.
const NOISE: usize = 2048;
const RUN: usize = 64;
/// Octets of one that is long, which is seldom.
const LONG: usize = 70_000;

/// One of the samples with a few mutations, or noise.
pub(crate) fn octets(random: &mut Rng, samples: &[Vec<u8>]) -> Vec<u8> {
    if random.u8(..) < 16 {
        let length = random.usize(..NOISE);
        return noise(random, length);
    }
    let mut octets = random.choice(samples).cloned().unwrap_or_default();
    for _ in 0..random.u8(1..6) {
        mutate(random, &mut octets, samples);
    }
    octets
}

fn noise(random: &mut Rng, length: usize) -> Vec<u8> {
    (0..length).map(|_| random.u8(..)).collect()
}

fn mutate(random: &mut Rng, octets: &mut Vec<u8>, samples: &[Vec<u8>]) {
    let length = octets.len();
    let at = random.usize(..=length);
    match random.u8(..10) {
        0 | 1 if at < length => octets[at] ^= 1 << random.u8(..8),
        2 if at < length => octets[at] = random.u8(..),
        3 => octets.truncate(at),
        4 => {
            let many = if random.u8(..) == 0 && random.bool() { LONG } else { RUN };
            let count = random.usize(..many);
            let inserted =
                if random.bool() { vec![random.u8(..); count] } else { noise(random, count) };
            octets.splice(at..at, inserted);
        }
        5 => drop(octets.drain(at..(at + random.usize(..RUN)).min(length))),
        6 => {
            let repeated = octets[at..(at + random.usize(..RUN)).min(length)].to_vec();
            octets.splice(at..at, repeated);
        }
        7 => {
            let other = random.choice(samples).cloned().unwrap_or_default();
            let from = random.usize(..=other.len());
            octets.truncate(at);
            octets.extend(&other[from..]);
        }
        _ => set_number(random, &mut octets[at..], length),
    }
}

/// Sets what may be a field, of either order of octets.
fn set_number(random: &mut Rng, octets: &mut [u8], length: usize) {
    let number = match random.usize(..NUMBERS.len() + 3) {
        near @ 0..3 => (length as u64 + near as u64).wrapping_sub(1),
        other => NUMBERS[other - 3],
    };
    let size = 1 << random.u8(..4);
    let (big, little) = (number.to_be_bytes(), number.to_le_bytes());
    let field = if random.bool() { &big[8 - size..] } else { &little[..size] };
    octets.iter_mut().zip(field).for_each(|(octet, new)| *octet = *new);
}
