//! An order by turn for very many. Who comes mostly has the highest turn, and who goes the lowest: runs that are filled to
//! the end before the next begins take half the memory of a tree's leaves, which stay half empty behind such a front.

use std::collections::{BTreeMap, VecDeque};

use super::slab::LaneNo;

type Turn = (u64, LaneNo);

/// The most that stand in one run.
const RUN: usize = 256;

/// Each run by a bound that none of its turns is below, and none of the run before is above. No run is empty.
#[derive(Debug, Default)]
pub(super) struct Turns(BTreeMap<Turn, VecDeque<Turn>>);

impl Turns {
    pub(super) fn insert(&mut self, turn: Turn) {
        let is_last = self.0.last_key_value().is_none_or(|(bound, _)| *bound <= turn);
        let run = match self.0.range_mut(..=turn).next_back() {
            Some((_, run)) => run,
            None => {
                let first = self.0.pop_first().map(|(_, run)| run).unwrap_or_default();
                self.0.entry(turn).or_insert(first)
            }
        };
        if run.len() < RUN {
            insert_into(run, turn);
            return;
        }
        // A run that is full stays so where turns come in their order; elsewhere it is halved.
        let mut next = if is_last && run.back().is_some_and(|last| *last < turn) {
            VecDeque::with_capacity(RUN)
        } else {
            run.split_off(RUN / 2)
        };
        match next.front() {
            Some(first) if turn < *first => insert_into(run, turn),
            _ => insert_into(&mut next, turn),
        }
        if let Some(first) = next.front() {
            self.0.insert(*first, next);
        }
    }

    pub(super) fn remove(&mut self, turn: Turn) {
        let Some((bound, run)) = self.0.range_mut(..=turn).next_back() else { return };
        let bound = *bound;
        if let Ok(place) = run.binary_search(&turn) {
            run.remove(place);
        }
        if run.is_empty() {
            self.0.remove(&bound);
        } else if run.len() <= RUN / 4 {
            self.join(bound);
        }
    }

    /// A run of few takes in the one behind it, if that has few, too.
    fn join(&mut self, bound: Turn) {
        let few = |run: &VecDeque<Turn>| run.len() <= RUN / 4;
        let Some(next) = self.0.range(bound..).nth(1).filter(|(_, run)| few(run)).map(|(next, _)| *next) else {
            return;
        };
        if let (Some(behind), Some(run)) = (self.0.remove(&next), self.0.get_mut(&bound)) {
            run.extend(behind);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Turn> {
        self.0.values().flatten().copied()
    }
}

fn insert_into(run: &mut VecDeque<Turn>, turn: Turn) {
    if let Err(place) = run.binary_search(&turn) {
        run.insert(place, turn);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Turns that mostly come at the end and go at the front, and now and then anywhere.
    #[test]
    fn the_order_is_that_of_a_set() {
        for seed in 0..60 {
            let mut jitter = fastrand::Rng::with_seed(seed);
            let (mut turns, mut set, mut last) = (Turns::default(), BTreeSet::new(), 0);
            let size = jitter.usize(1..4000);
            for _ in 0..20_000 {
                let anywhere = (jitter.u64(0..=last + 1), LaneNo(jitter.u32(0..3)));
                match jitter.u8(0..10) {
                    0 => {
                        turns.insert(anywhere);
                        set.insert(anywhere);
                    }
                    1 => {
                        turns.remove(anywhere);
                        set.remove(&anywhere);
                    }
                    _ if set.len() < size => {
                        last += 1;
                        turns.insert((last, LaneNo(0)));
                        set.insert((last, LaneNo(0)));
                    }
                    _ => {
                        let first = *set.first().unwrap();
                        turns.remove(first);
                        set.remove(&first);
                    }
                }
                assert_eq!(turns.iter().next(), set.first().copied(), "seed {seed}");
                assert_eq!(turns.is_empty(), set.is_empty());
            }
            assert!(turns.iter().eq(set.iter().copied()), "seed {seed}");
            assert!(turns.0.values().all(|run| !run.is_empty() && run.len() <= RUN), "seed {seed}");
            for turn in &set {
                turns.remove(*turn);
            }
            assert!(turns.is_empty(), "seed {seed}: what is left when all are gone");
        }
    }

    #[test]
    fn runs_are_full_behind_a_front() {
        let mut turns = Turns::default();
        for turn in 0..100 * RUN as u64 {
            turns.insert((turn, LaneNo(0)));
        }
        assert_eq!(turns.0.len(), 100);
        assert!(turns.0.values().all(|run| run.capacity() == RUN));
    }
}
