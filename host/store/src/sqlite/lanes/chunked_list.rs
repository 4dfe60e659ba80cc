//! A sorted list of many lanes by turn. A lane that joins mostly has the highest turn, and one that leaves the lowest: chunks
//! that are filled to the end before the next one starts take half the memory of a B-tree's leaves, which stay half empty
//! behind such a front.

use std::collections::{BTreeMap, VecDeque};

use super::numbers::LaneNo;

/// A lane's turn, and the lane.
type Turn = (u64, LaneNo);

/// Most turns in one chunk.
const CHUNK_LEN_MAX: usize = 256;

/// Chunks of turns, each under a bound: none of its turns is below the bound, and none of the chunk before is above it. No
/// chunk is empty.
#[derive(Debug, Default)]
pub(super) struct ChunkedList(BTreeMap<Turn, VecDeque<Turn>>);

impl ChunkedList {
    pub(super) fn insert(&mut self, turn: Turn) {
        let is_last = self.0.last_key_value().is_none_or(|(bound, _)| *bound <= turn);
        let chunk = match self.0.range_mut(..=turn).next_back() {
            Some((_, chunk)) => chunk,
            None => {
                let first = self.0.pop_first().map(|(_, chunk)| chunk).unwrap_or_default();
                self.0.entry(turn).or_insert(first)
            }
        };
        if chunk.len() < CHUNK_LEN_MAX {
            insert_sorted(chunk, turn);
            return;
        }
        // A full chunk stays full if turns come in ascending order; otherwise it is split in half.
        let mut next = if is_last && chunk.back().is_some_and(|last| *last < turn) {
            VecDeque::with_capacity(CHUNK_LEN_MAX)
        } else {
            chunk.split_off(CHUNK_LEN_MAX / 2)
        };
        match next.front() {
            Some(first) if turn < *first => insert_sorted(chunk, turn),
            _ => insert_sorted(&mut next, turn),
        }
        if let Some(first) = next.front() {
            self.0.insert(*first, next);
        }
    }

    pub(super) fn remove(&mut self, turn: Turn) {
        let Some((bound, chunk)) = self.0.range_mut(..=turn).next_back() else { return };
        let bound = *bound;
        if let Ok(index) = chunk.binary_search(&turn) {
            chunk.remove(index);
        }
        if chunk.is_empty() {
            self.0.remove(&bound);
        } else if chunk.len() <= CHUNK_LEN_MAX / 4 {
            self.merge_next(bound);
        }
    }

    /// Moves the turns of the next chunk into this short one, if the next one is short, too.
    fn merge_next(&mut self, bound: Turn) {
        let is_short = |chunk: &VecDeque<Turn>| chunk.len() <= CHUNK_LEN_MAX / 4;
        let Some(next) = self.0.range(bound..).nth(1).filter(|(_, chunk)| is_short(chunk)).map(|(next, _)| *next)
        else {
            return;
        };
        if let (Some(moved), Some(chunk)) = (self.0.remove(&next), self.0.get_mut(&bound)) {
            chunk.extend(moved);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns all turns in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Turn> {
        self.0.values().flatten().copied()
    }
}

fn insert_sorted(chunk: &mut VecDeque<Turn>, turn: Turn) {
    if let Err(index) = chunk.binary_search(&turn) {
        chunk.insert(index, turn);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Turns are mostly added at the end and removed at the front, and now and then anywhere.
    #[test]
    fn the_list_has_the_order_of_a_set() {
        for seed in 0..60 {
            let mut jitter = fastrand::Rng::with_seed(seed);
            let (mut list, mut set, mut last) = (ChunkedList::default(), BTreeSet::new(), 0);
            let size = jitter.usize(1..4000);
            for _ in 0..20_000 {
                let anywhere = (jitter.u64(0..=last + 1), LaneNo(jitter.u32(0..3)));
                match jitter.u8(0..10) {
                    0 => {
                        list.insert(anywhere);
                        set.insert(anywhere);
                    }
                    1 => {
                        list.remove(anywhere);
                        set.remove(&anywhere);
                    }
                    _ if set.len() < size => {
                        last += 1;
                        list.insert((last, LaneNo(0)));
                        set.insert((last, LaneNo(0)));
                    }
                    _ => {
                        let first = *set.first().unwrap();
                        list.remove(first);
                        set.remove(&first);
                    }
                }
                assert_eq!(list.iter().next(), set.first().copied(), "seed {seed}");
                assert_eq!(list.is_empty(), set.is_empty());
            }
            assert!(list.iter().eq(set.iter().copied()), "seed {seed}");
            let is_valid = |chunk: &VecDeque<Turn>| !chunk.is_empty() && chunk.len() <= CHUNK_LEN_MAX;
            assert!(list.0.values().all(is_valid), "seed {seed}");
            for turn in &set {
                list.remove(*turn);
            }
            assert!(list.is_empty(), "seed {seed}: turns are left after all were removed");
        }
    }

    #[test]
    fn chunks_are_full_behind_a_front() {
        let mut list = ChunkedList::default();
        for turn in 0..100 * CHUNK_LEN_MAX as u64 {
            list.insert((turn, LaneNo(0)));
        }
        assert_eq!(list.0.len(), 100);
        assert!(list.0.values().all(|chunk| chunk.capacity() == CHUNK_LEN_MAX));
    }
}
