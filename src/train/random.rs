//! What follows from a seed: the same on every machine and in every version.

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound`, each as likely as the others: what would favour some is drawn again.
    fn below(&mut self, bound: u64) -> u64 {
        let surplus = (u64::MAX % bound + 1) % bound;
        loop {
            let number = self.next();
            if number <= u64::MAX - surplus {
                return number % bound;
            }
        }
    }
}

/// The seed that a training graph is fed with in one step of a run; not negative.
pub(super) fn seed_of_step(seed: u64, step: u64) -> i64 {
    (SplitMix64(SplitMix64(seed).next().wrapping_add(step)).next() >> 1) as i64
}

/// A permutation of the numbers below `count` (Fisher–Yates), which depends on these arguments only.
pub(super) fn permutation(count: usize, seed: u64, stream: u64) -> Vec<usize> {
    let mut random = SplitMix64(SplitMix64(seed).next().wrapping_add(stream));
    // Streams that follow on each other begin far apart.
    random = SplitMix64(random.next());
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        order.swap(at, random.below(at as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = SplitMix64(1_234_567);
        let expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        assert_eq!([(); 4].map(|()| random.next()), expected);
    }

    #[test]
    fn permutations_are_uniform() {
        let mut counts = BTreeMap::new();
        for stream in 0..24_000 {
            *counts.entry(permutation(4, 7, stream)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 24);
        // Each is a binomial of mean 1000 and deviation 31.
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn seed_and_stream_both_count() {
        let all: std::collections::BTreeSet<Vec<usize>> =
            (0..30).flat_map(|seed| (0..30).map(move |stream| permutation(20, seed, stream))).collect();
        assert_eq!(all.len(), 900);
        assert_eq!(permutation(20, 3, 4), permutation(20, 3, 4));
        assert!(permutation(0, 1, 1).is_empty());
    }
}
