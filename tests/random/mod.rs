//! Chance that a seed repeats: [SplitMix64](https://doi.org/10.1145/2714064.2660195).
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{ops::Range, time::Duration};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    /// Chance of its own, for somebody who draws it in an order of their own.
    pub(crate) fn fork(&mut self) -> Random {
        Random(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut it = self.0;
        it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        it ^ (it >> 31)
    }

    /// From nothing to less than `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is below")
    }

    /// Whole milliseconds, from the first to less than the last.
    pub(crate) fn time(&mut self, range: Range<Duration>) -> Duration {
        let [from, to] = [range.start, range.end].map(|time| time.as_millis() as u64);
        Duration::from_millis(from + self.next() % (to - from))
    }

    /// So many times out of a hundred.
    pub(crate) fn percent(&mut self, times: usize) -> bool {
        self.below(100) < times
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}
