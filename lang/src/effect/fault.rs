//! At which hits a probe acts: the attributes of the kernel's fault injection.
//!
//! Names, order and meaning are those of Linux 6.12 `lib/fault-inject.c` (`should_fail_ex`) and
//! `Documentation/fault-injection/fault-injection.rst`, with three differences. `space` counts hits, where the kernel's
//! counts bytes of allocations. `times` is exact: the kernel looks at it first and counts down later, so several CPUs
//! may pass together. And the dice can be repeated: hit k gets the k-th number of a generator that `seed` starts, so the
//! same hits are chosen in each run of a guest that hits in the same order, whatever vCPU they are on.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Which of the eligible hits (those that passed the filter) get the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultAttr {
    /// How likely a hit is chosen, in percent: 0 to 100.
    pub probability: u8,
    /// Only every so many hits; 0 is taken for 1.
    pub interval: u64,
    /// At most so many effects; negative for no limit.
    pub times: i64,
    /// So many hits are let through first.
    pub space: u64,
    /// Only this hit, counted from 1: the other attributes are not looked at.
    pub nth: Option<u64>,
    /// Starts the dice.
    pub seed: u64,
}

impl Default for FaultAttr {
    fn default() -> Self {
        Self { probability: 100, interval: 1, times: -1, space: 0, nth: None, seed: 0 }
    }
}

/// How far a probe has come. One per probe, shared by all vCPUs.
#[derive(Debug, Default)]
pub struct FaultState {
    hits: AtomicU64,
    effects: AtomicU64,
}

impl FaultState {
    /// Eligible hits so far.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Effects so far.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.effects.load(Ordering::Relaxed)
    }
}

impl FaultAttr {
    /// Counts one eligible hit, and says whether it gets the effect. No lock, no allocation.
    ///
    /// 1. `nth` decides alone.
    /// 2. The first `space` hits are let through.
    /// 3. Of the others, every `interval`-th goes on.
    /// 4. The dice.
    /// 5. `times`: one of what is left is taken.
    #[inline]
    #[must_use]
    pub fn should_fail(&self, state: &FaultState) -> bool {
        // Relaxed: each counter stands for itself, and publishes nothing.
        let hit = state.hits.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if let Some(nth) = self.nth {
            return hit == nth && take(state, u64::MAX);
        }
        let Some(behind) = hit.checked_sub(self.space).filter(|behind| *behind > 0) else { return false };
        if behind % self.interval.max(1) != 0 {
            return false;
        }
        if self.probability < 100 && dice(self.seed, hit) >= self.probability {
            return false;
        }
        // A negative number is no limit.
        take(state, u64::try_from(self.times).unwrap_or(u64::MAX))
    }
}

/// Counts one more effect, unless there are `limit` already.
fn take(state: &FaultState, limit: u64) -> bool {
    let one_more = |taken: u64| (taken < limit).then(|| taken.wrapping_add(1));
    state.effects.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}

/// A number from 0 to 99 for hit `k`.
fn dice(seed: u64, k: u64) -> u8 {
    let random = u128::from(split_mix(seed, k));
    // The high half of a product: nearly unbiased, without a division. Below 100, so it fits.
    u8::try_from((random * 100) >> 64).unwrap_or(0)
}

/// Output `k` (from 1) of SplitMix64 with this seed: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators",
/// OOPSLA 2014, with the constants of Vigna's `splitmix64.c`. Its state is a counter, so that any output can be had
/// without those before it.
fn split_mix(seed: u64, k: u64) -> u64 {
    let mut z = seed.wrapping_add(k.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use super::*;

    /// The numbers of the chosen hits among the first `hits`.
    fn chosen(attr: FaultAttr, hits: u64) -> Vec<u64> {
        let state = FaultState::default();
        (1..=hits).filter(|_| attr.should_fail(&state)).collect()
    }

    const ALL: FaultAttr = FaultAttr { probability: 100, interval: 1, times: -1, space: 0, nth: None, seed: 0 };

    #[test]
    fn by_default_every_hit() {
        assert_eq!(FaultAttr::default(), ALL);
        assert_eq!(chosen(ALL, 4), [1, 2, 3, 4]);
    }

    #[test]
    fn each_attribute() {
        assert_eq!(chosen(FaultAttr { nth: Some(3), times: 0, probability: 0, ..ALL }, 10), [3]);
        assert_eq!(chosen(FaultAttr { nth: Some(11), ..ALL }, 10), []);
        assert_eq!(chosen(FaultAttr { space: 3, ..ALL }, 5), [4, 5]);
        assert_eq!(chosen(FaultAttr { interval: 3, ..ALL }, 10), [3, 6, 9]);
        assert_eq!(chosen(FaultAttr { interval: 0, ..ALL }, 2), [1, 2]);
        assert_eq!(chosen(FaultAttr { times: 2, ..ALL }, 10), [1, 2]);
        assert_eq!(chosen(FaultAttr { times: 0, ..ALL }, 10), []);
        assert_eq!(chosen(FaultAttr { probability: 0, ..ALL }, 1000), []);
        assert_eq!(chosen(FaultAttr { space: 2, interval: 3, times: 2, ..ALL }, 20), [5, 8]);
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // The first outputs for this seed, as published with several implementations of it.
        let first: Vec<u64> = (1..=5).map(|k| split_mix(1_234_567, k)).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }

    #[test]
    fn the_dice_depend_on_the_seed_alone() {
        let some = FaultAttr { probability: 20, seed: 7, ..ALL };
        assert_eq!(chosen(some, 10_000), chosen(some, 10_000));
        assert_ne!(chosen(some, 100), chosen(FaultAttr { seed: 8, ..some }, 100));
        for probability in [1, 20, 50, 99] {
            let count = chosen(FaultAttr { probability, ..some }, 100_000).len();
            let expected = usize::from(probability) * 1000;
            assert!(count.abs_diff(expected) < 500, "{probability}: {count}");
        }
    }

    #[test]
    fn the_same_hits_whatever_thread_they_are_on() {
        let attr = FaultAttr { probability: 30, interval: 3, space: 100, seed: 1, ..ALL };
        let alone = FaultState::default();
        let alone_chosen = (0..80_000).filter(|_| attr.should_fail(&alone)).count();
        let shared = FaultState::default();
        let shared_chosen: usize = std::thread::scope(|scope| {
            let run = || (0..10_000).filter(|_| attr.should_fail(&shared)).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(alone_chosen, shared_chosen);
    }

    #[test]
    fn times_is_exact_over_all_threads() {
        let attr = FaultAttr { times: 1000, ..ALL };
        let state = FaultState::default();
        let chosen: usize = std::thread::scope(|scope| {
            let run = || (0..100_000).filter(|_| attr.should_fail(&state)).count();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!((chosen, state.effects(), state.hits()), (1000, 1000, 800_000));
    }
}
