//! Where each lane is kept. There may be as many as keys, so that a byte for each counts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use wharf_core::ids::Group;
use wharf_core::key::{Key, Lane};

use super::lane_state::LaneState;

/// A lane's place in memory. Good until the transaction ends, and longer for a lane in which jobs wait or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sqlite) struct LaneNo(pub(in crate::sqlite) u32);

/// A group's number among `Groups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupNo(u32);

/// Lanes are kept in pieces of this many: to grow is not to copy.
const PIECE: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Places {
    pieces: Vec<Vec<LaneState>>,
    /// Places that nobody has.
    free: Vec<LaneNo>,
    /// Finds a lane's place without a second copy of its name. Keys are made by others: the hasher is one that they cannot
    /// make collide.
    by_lane: HashTable<LaneNo>,
    hasher: RandomState,
    groups: Groups,
}

impl Places {
    pub(super) fn find(&self, lane: &Lane) -> Option<LaneNo> {
        let group = self.groups.find(&lane.group)?;
        let is_it = |no: &LaneNo| self[*no].is_called(group, &lane.key);
        self.by_lane.find(self.hash(group, &lane.key), is_it).copied()
    }

    /// Gives a place to a lane that has none.
    pub(super) fn add(&mut self, lane: &Lane) -> LaneNo {
        let group = self.groups.number(&lane.group);
        let hash = self.hash(group, &lane.key);
        let fresh = LaneState::new(group, lane.key.clone());
        let no = match self.free.pop() {
            Some(no) => {
                self[no] = fresh;
                no
            }
            None => self.push(fresh),
        };
        let Places { pieces, by_lane, hasher, .. } = self;
        by_lane.insert_unique(hash, no, |no| {
            let lane = at(pieces, *no);
            hasher.hash_one((lane.group.0, &lane.key))
        });
        no
    }

    fn push(&mut self, fresh: LaneState) -> LaneNo {
        if self.pieces.last().is_none_or(|piece| piece.len() == PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        let before = (self.pieces.len() - 1) * PIECE;
        let piece = self.pieces.last_mut().expect("one was made above");
        piece.push(fresh);
        LaneNo((before + piece.len() - 1) as u32)
    }

    fn hash(&self, group: GroupNo, key: &Option<Key>) -> u64 {
        self.hasher.hash_one((group.0, key))
    }

    pub(super) fn name(&self, no: LaneNo) -> Lane {
        let state = &self[no];
        Lane { group: self.groups.name(state.group).clone(), key: state.key.clone() }
    }

    pub(super) fn group(&self, no: LaneNo) -> &Group {
        self.groups.name(self[no].group)
    }

    pub(super) fn free(&mut self, no: LaneNo) {
        let state = &self[no];
        let hash = self.hash(state.group, &state.key);
        if let Ok(found) = self.by_lane.find_entry(hash, |other| *other == no) {
            found.remove();
            self.free.push(no);
            self[no].key = None;
        }
    }

    /// Where nobody is left, what many took is given back.
    pub(super) fn trim(&mut self) {
        if self.by_lane.is_empty() && self.pieces.len() > 1 {
            self.pieces = Vec::new();
            self.free = Vec::new();
            self.by_lane = HashTable::new();
        }
    }

    /// Every place, also those that nobody has.
    pub(super) fn all(&self) -> impl Iterator<Item = LaneNo> + use<> {
        let last = self.pieces.last().map_or(0, |last| (self.pieces.len() - 1) * PIECE + last.len());
        (0..last as u32).map(LaneNo)
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> impl Iterator<Item = LaneNo> {
        self.by_lane.iter().copied()
    }
}

fn at(pieces: &[Vec<LaneState>], no: LaneNo) -> &LaneState {
    &pieces[no.0 as usize / PIECE][no.0 as usize % PIECE]
}

impl Index<LaneNo> for Places {
    type Output = LaneState;
    fn index(&self, no: LaneNo) -> &LaneState {
        at(&self.pieces, no)
    }
}

impl IndexMut<LaneNo> for Places {
    fn index_mut(&mut self, no: LaneNo) -> &mut LaneState {
        &mut self.pieces[no.0 as usize / PIECE][no.0 as usize % PIECE]
    }
}

/// The names of groups: few, and never removed.
#[derive(Debug, Default)]
struct Groups {
    names: Vec<Group>,
    numbers: HashMap<Group, GroupNo>,
}

impl Groups {
    fn find(&self, name: &Group) -> Option<GroupNo> {
        self.numbers.get(name).copied()
    }

    fn number(&mut self, name: &Group) -> GroupNo {
        if let Some(known) = self.find(name) {
            return known;
        }
        let no = GroupNo(self.names.len() as u32);
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), no);
        no
    }

    fn name(&self, no: GroupNo) -> &Group {
        &self.names[no.0 as usize]
    }
}
