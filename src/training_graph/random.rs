//! Random numbers from a seed that is fed at every step.
//!
//! The random operators of ONNX take their seed as an attribute, so that no run can be repeated from its middle. These numbers are a
//! function of the seed, of a stream and of an element's position, in integer operators that every runtime has: the block
//! cipher MiMC (Albrecht et al., 2016) over the integers modulo a prime, with the seed as its key and the position as the message.

use crate::model::Builder;

/// The largest prime below 2³¹ with remainder 2 modulo 3: cubing is a permutation, and the product of a remainder and the sum of two
/// fits 63 bits.
const PRIME: u64 = 2_147_483_579;

/// How often a message is cubed. Four rounds have degree 81 in the position, and no correlation that a test of 10⁶ numbers sees.
const ROUNDS: u64 = 4;

/// Random numbers of one training graph.
#[derive(Debug, Clone)]
pub(super) struct Random {
    seed: String,
    streams: u64,
}

impl Random {
    /// From a seed, an int64 scalar.
    pub(super) fn new(seed: String) -> Self {
        Self { seed, streams: 0 }
    }

    /// The seed.
    pub(super) fn seed(&self) -> &str {
        &self.seed
    }

    /// Independent numbers, uniform in (0, 1), in the shape of `like` and of the element type `elem`.
    pub(super) fn uniform(&mut self, b: &mut Builder<'_>, like: &str, elem: i32) -> String {
        let stream = self.streams;
        self.streams += 1;
        let prime = b.int(PRIME as i64);
        let size = b.op("Size", &[like]);
        let position = b.count_up(&size);
        let seed = b.op("Mod", &[&self.seed, &prime]);
        let mut state = position;
        for round in 0..ROUNDS {
            let constant = b.int((mixed(stream * ROUNDS + round) % PRIME) as i64);
            let key = b.op("Add", &[&seed, &constant]);
            let key = b.op("Mod", &[&key, &prime]);
            let sum = b.op("Add", &[&state, &key]);
            let base = b.op("Mod", &[&sum, &prime]);
            // Not base · base: tract makes a square of that, which it has for floating-point numbers only.
            let square = b.op("Mul", &[&base, &sum]);
            let square = b.op("Mod", &[&square, &prime]);
            let cube = b.op("Mul", &[&square, &base]);
            state = b.op("Mod", &[&cube, &prime]);
        }
        let number = b.cast(&state, elem);
        let half = b.scalar(0.5, elem);
        let centred = b.op("Add", &[&number, &half]);
        // A little less than 1 / PRIME: no number is rounded up to one.
        let step = b.scalar((1.0 - f64::from(f32::EPSILON) * 2.0) / PRIME as f64, elem);
        let number = b.op("Mul", &[&centred, &step]);
        b.reshape_like(&number, like)
    }

    /// Independent numbers with the standard normal distribution: √(-2 ln u)·cos(2πv), for uniform u and v (Box and Muller, 1958).
    pub(super) fn normal(&mut self, b: &mut Builder<'_>, like: &str, elem: i32) -> String {
        let [u, v] = [(); 2].map(|()| self.uniform(b, like, elem));
        let logarithm = b.op("Log", &[&u]);
        let minus_two = b.scalar(-2.0, elem);
        let square = b.op("Mul", &[&logarithm, &minus_two]);
        let radius = b.op("Sqrt", &[&square]);
        let turn = b.scalar(std::f64::consts::TAU, elem);
        let angle = b.op("Mul", &[&v, &turn]);
        let cosine = b.op("Cos", &[&angle]);
        b.op("Mul", &[&radius, &cosine])
    }
}

/// A number without pattern for each number (the finalizer of SplitMix64, Steele et al., 2014).
fn mixed(number: u64) -> u64 {
    let mut z = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubing_is_a_permutation_modulo_the_prime() {
        assert_eq!(PRIME % 3, 2);
        assert!((2..).take_while(|d| d * d <= PRIME).all(|d| !PRIME.is_multiple_of(d)));
        const { assert!(2 * (PRIME - 1) * (PRIME - 1) < 1 << 63) };
    }
}
