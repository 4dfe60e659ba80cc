//! The keys that use the most, in bounded space: the space-saving sketch of Metwally, Agrawal and El Abbadi.

use std::collections::HashMap;

use crate::key::Key;

/// The weight of a key in a sketch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyWeight {
    /// The weight, which is at least the true one.
    pub weight: u64,
    /// At most so much of the weight belongs to other keys.
    pub error: u64,
}

/// A sketch of the keys with the greatest weights. It keeps `max` keys: each whose weight is more than the sum of all weights
/// divided by `max` is among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopKeys {
    keys: HashMap<Key, KeyWeight>,
    max: usize,
    /// No key that is not kept has more.
    floor: u64,
}

impl TopKeys {
    /// Returns a sketch of at most `max` keys, at least one.
    pub fn new(max: usize) -> TopKeys {
        TopKeys { keys: HashMap::new(), max: max.max(1), floor: 0 }
    }

    /// Adds to the weight of a key. The key with the least weight makes room for one that is new.
    pub fn add(&mut self, key: &Key, weight: u64) {
        if let Some(known) = self.keys.get_mut(key) {
            known.weight = known.weight.saturating_add(weight);
            return;
        }
        if self.keys.len() >= self.max
            && let Some((least, at)) =
                self.keys.iter().map(|(key, of)| (key.clone(), of.weight)).min_by_key(|(_, at)| *at)
        {
            self.keys.remove(&least);
            self.floor = self.floor.max(at);
        }
        let of = KeyWeight { weight: weight.saturating_add(self.floor), error: self.floor };
        self.keys.insert(key.clone(), of);
    }

    /// Adds another sketch. A key that one of the two does not keep may have as much there as the other's floor.
    pub fn merge(&mut self, other: &TopKeys) {
        let (own_floor, other_floor) = (self.floor, other.floor);
        for (key, of) in &mut self.keys {
            let there = other.keys.get(key).copied().unwrap_or(KeyWeight { weight: other_floor, error: other_floor });
            *of = KeyWeight {
                weight: of.weight.saturating_add(there.weight),
                error: of.error.saturating_add(there.error),
            };
        }
        for (key, there) in &other.keys {
            self.keys.entry(key.clone()).or_insert(KeyWeight {
                weight: there.weight.saturating_add(own_floor),
                error: there.error.saturating_add(own_floor),
            });
        }
        self.floor = own_floor.saturating_add(other_floor);
        let sorted = self.sorted();
        for (key, of) in sorted.into_iter().skip(self.max) {
            self.keys.remove(&key);
            self.floor = self.floor.max(of.weight);
        }
    }

    /// Returns the keys, the one with the greatest weight first.
    pub fn sorted(&self) -> Vec<(Key, KeyWeight)> {
        let mut all: Vec<(Key, KeyWeight)> = self.keys.iter().map(|(key, of)| (key.clone(), *of)).collect();
        all.sort_by(|(a, one), (b, other)| other.weight.cmp(&one.weight).then_with(|| a.cmp(b)));
        all
    }

    /// Returns the greatest weight that a key may have which is not kept.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Returns the sketch with these parts, as a store read them.
    pub fn from_parts(keys: impl IntoIterator<Item = (Key, KeyWeight)>, floor: u64, max: usize) -> TopKeys {
        TopKeys { keys: keys.into_iter().take(max).collect(), max: max.max(1), floor }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn key(number: u64) -> Key {
        format!("k{number}").parse().unwrap()
    }

    /// Checks that a sketch tells the truth about these weights, within the errors that it states.
    fn check(sketch: &TopKeys, truth: &BTreeMap<Key, u64>, max: usize) {
        let total: u64 = truth.values().sum();
        let found: BTreeMap<Key, KeyWeight> = sketch.sorted().into_iter().collect();
        assert!(found.len() <= max);
        for (key, of) in &found {
            let weight = truth.get(key).copied().unwrap_or_default();
            assert!(of.weight >= weight && of.weight - of.error <= weight, "{key}: {of:?}, in truth {weight}");
        }
        for (key, weight) in truth.iter().filter(|(key, _)| !found.contains_key(*key)) {
            assert!(*weight <= sketch.floor(), "{key} has {weight}, and is not kept");
        }
        assert!(sketch.floor() <= 2 * total / max as u64, "{} of {total}", sketch.floor());
    }

    #[test]
    fn heavy_keys_are_found_among_many_within_the_stated_error() {
        let (mut sketches, mut truths) = (Vec::new(), Vec::new());
        for seed in 0..3 {
            let (mut sketch, mut truth) = (TopKeys::new(20), BTreeMap::new());
            let mut state = 12_345_u64 + seed;
            for step in 0..20_000_u64 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // Every third goes to one of three heavy keys, the others to ten thousand light ones.
                let number = if step % 3 == 0 { (state >> 33) % 3 } else { 10 + (state >> 33) % 10_000 };
                let weight = (state >> 20) % 9;
                sketch.add(&key(number), weight);
                *truth.entry(key(number)).or_default() += weight;
            }
            check(&sketch, &truth, 20);
            let top: Vec<Key> = sketch.sorted().into_iter().take(3).map(|(key, _)| key).collect();
            assert!((0..3).all(|number| top.contains(&key(number))), "{top:?}");
            sketches.push(sketch);
            truths.push(truth);
        }
        let mut all = sketches.remove(0);
        sketches.iter().for_each(|other| all.merge(other));
        let mut truth = truths.remove(0);
        truths.into_iter().flatten().for_each(|(key, weight)| *truth.entry(key).or_default() += weight);
        check(&all, &truth, 20);
    }

    #[test]
    fn few_keys_are_exact() {
        let mut sketch = TopKeys::new(3);
        for (number, weight) in [(1, 5), (2, 7), (1, 4)] {
            sketch.add(&key(number), weight);
        }
        let exact = |weight| KeyWeight { weight, error: 0 };
        assert_eq!(sketch.sorted(), [(key(1), exact(9)), (key(2), exact(7))]);
        let again = TopKeys::from_parts(sketch.sorted(), sketch.floor(), 3);
        assert_eq!(again, sketch);
    }
}
