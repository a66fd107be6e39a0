//! Chance: one generator, seeded once from outside.
//!
//! Owns everything random in the core, tokens, PINs and ids included; refuses to know where the seed came from. With the
//! same seed and the same inputs a run is the same to the last byte.

use alloc::string::String;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use uuid::Uuid;

use crate::contract::id::DeviceId;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The generator: ChaCha20, as a cipher's key stream under the seed.
#[derive(Debug)]
pub(crate) struct Entropy(ChaCha20Rng);

impl Entropy {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }

    pub(crate) fn fill(&mut self, to: &mut [u8]) {
        self.0.fill_bytes(to);
    }

    /// Uniform in `0..bound`, without the bias of a remainder: numbers above the largest multiple are drawn again.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let bound = bound.max(1);
        let usable = u32::MAX - u32::MAX % bound;
        loop {
            let drawn = self.0.next_u32();
            if drawn < usable {
                return drawn % bound;
            }
        }
    }

    /// `len` characters, each uniform in Base62.
    pub(crate) fn base62(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(self.base62_byte())).collect()
    }

    fn base62_byte(&mut self) -> u8 {
        let index = usize::try_from(self.below(62)).unwrap_or_default();
        BASE62.get(index).copied().unwrap_or(b'0')
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    pub(crate) fn device_id(&mut self) -> DeviceId {
        let mut id = [0; 8];
        id.fill_with(|| self.base62_byte());
        DeviceId(id)
    }
}

/// `value` in six Base62 digits, most significant first (62⁶ > 2³²).
pub(crate) fn base62_of_u32(mut value: u32) -> [u8; 6] {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        let index = usize::try_from(value % 62).unwrap_or_default();
        *digit = BASE62.get(index).copied().unwrap_or(b'0');
        value /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_is_within_and_reaches_everything() {
        let mut entropy = Entropy::new([7; 32]);
        let mut seen = [false; 10];
        for _ in 0..1000 {
            seen[usize::try_from(entropy.below(10)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 10]);
        assert_eq!(entropy.below(0), 0);
    }

    #[test]
    fn base62_of_numbers() {
        assert_eq!(&base62_of_u32(0), b"000000");
        assert_eq!(&base62_of_u32(61), b"00000z");
        assert_eq!(&base62_of_u32(u32::MAX), b"4gfFC3");
    }
}
