//! A histogram of lengths of time in bounded space. Histograms of several nodes can be merged.

use std::time::Duration;

/// The number of buckets for each doubling of the length.
const PER_OCTAVE: usize = 4;
/// The number of buckets: the last one holds everything from about two days on.
pub const BUCKETS: usize = 148;

/// A histogram of lengths of time, in microseconds. A quantile that it returns differs from the true one by an eighth at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u32; BUCKETS]>,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: Box::new([0; BUCKETS]) }
    }
}

impl Histogram {
    /// Adds a length.
    pub fn add(&mut self, length: Duration) {
        self.add_to(bucket_of(u64::try_from(length.as_micros()).unwrap_or(u64::MAX)), 1);
    }

    /// Adds `count` to a bucket; nothing if there is no such bucket.
    pub fn add_to(&mut self, bucket: usize, count: u32) {
        if let Some(before) = self.counts.get_mut(bucket) {
            *before = before.saturating_add(count);
        }
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Histogram) {
        other.buckets().for_each(|(bucket, count)| self.add_to(bucket, count));
    }

    /// Returns the buckets that are not empty, each with its count.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, u32)> {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// Returns the number of lengths.
    pub fn count(&self) -> u64 {
        self.counts.iter().copied().map(u64::from).sum()
    }

    /// Returns a length that about `share` of all lengths do not exceed, such as 0.99; `None` if the histogram is empty.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = ((self.count() as f64) * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.buckets().find(|(_, count)| {
            seen += u64::from(*count);
            seen >= rank
        });
        found.map(|(bucket, _)| Duration::from_micros(middle_of(bucket)))
    }
}

/// Returns the bucket of a number of microseconds. Numbers below four have one each; from there on each doubling has four.
fn bucket_of(micros: u64) -> usize {
    if micros < PER_OCTAVE as u64 {
        return micros as usize;
    }
    let octave = micros.ilog2() as usize;
    let part = (micros >> (octave - 2)) as usize & (PER_OCTAVE - 1);
    (PER_OCTAVE * (octave - 1) + part).min(BUCKETS - 1)
}

/// Returns the number in the middle of a bucket.
fn middle_of(bucket: usize) -> u64 {
    if bucket < 2 * PER_OCTAVE {
        return bucket as u64;
    }
    let (octave, part) = (bucket / PER_OCTAVE + 1, (bucket % PER_OCTAVE) as u64);
    let width = 1_u64 << (octave - 2);
    (1 << octave) + part * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_a_bucket_whose_middle_is_near() {
        let mut before = 0;
        for micros in (0..5000).chain((5000..190_000_000_000).step_by(1_000_003)) {
            let bucket = bucket_of(micros);
            assert!(bucket >= before && bucket < BUCKETS, "{micros}");
            before = bucket;
            let middle = middle_of(bucket);
            if bucket < BUCKETS - 1 {
                assert!(middle.abs_diff(micros) * 8 <= micros.max(middle), "{micros} is taken for {middle}");
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_an_eighth_and_those_of_merged_histograms_are_those_of_all() {
        let (mut odd, mut even, mut all) = (Histogram::default(), Histogram::default(), Histogram::default());
        assert_eq!(all.quantile(0.5), None);
        for ms in 1..=1000_u64 {
            let length = Duration::from_millis(ms);
            all.add(length);
            if ms % 2 == 0 { even.add(length) } else { odd.add(length) }
        }
        for (share, ms) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0), (0.001, 1.0)] {
            let found = all.quantile(share).unwrap().as_secs_f64() * 1000.0;
            assert!((found - ms).abs() <= ms / 8.0 + 0.001, "{share}: {found}");
        }
        even.merge(&odd);
        assert_eq!(even, all);
        assert_eq!(all.count(), 1000);
    }

    #[test]
    fn counts_stop_at_their_end() {
        let mut full = Histogram::default();
        full.add_to(3, u32::MAX);
        full.add_to(3, 1);
        full.add_to(BUCKETS, 1);
        assert_eq!(full.count(), u64::from(u32::MAX));
    }
}
