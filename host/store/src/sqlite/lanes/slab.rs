//! The slab in which lanes are stored, by number. There may be as many lanes as keys, so that every byte per lane counts.

use std::hash::{BuildHasher, RandomState};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use wharf_core::ids::Group;
use wharf_core::key::{Key, Lane};

use super::lane_state::LaneState;
use super::numbers::{GroupNo, Groups, LaneNo};

/// Lanes per chunk: the slab grows by chunks, so that growing copies nothing.
const CHUNK_LEN: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct LaneSlab {
    chunks: Vec<Vec<LaneState>>,
    /// The numbers that no lane has.
    free: Vec<LaneNo>,
    /// Finds a lane's number without a second copy of its name. Clients choose the keys: the hasher is one for which they
    /// can't produce collisions.
    by_name: HashTable<LaneNo>,
    hasher: RandomState,
    groups: Groups,
}

impl LaneSlab {
    /// Returns the number of a lane, if it has one.
    pub(super) fn find(&self, lane: &Lane) -> Option<LaneNo> {
        let group = self.groups.find(&lane.group)?;
        let is_named = |no: &LaneNo| self[*no].is_named(group, &lane.key);
        self.by_name.find(self.hash(group, &lane.key), is_named).copied()
    }

    /// Gives a number to a lane that has none.
    pub(super) fn add(&mut self, lane: &Lane) -> LaneNo {
        let group = self.groups.find_or_add(&lane.group);
        let hash = self.hash(group, &lane.key);
        let state = LaneState::new(group, lane.key.clone());
        let no = match self.free.pop() {
            Some(no) => {
                self[no] = state;
                no
            }
            None => self.push(state),
        };
        let LaneSlab { chunks, by_name, hasher, .. } = self;
        by_name.insert_unique(hash, no, |no| {
            let lane = state_at(chunks, *no);
            hasher.hash_one((lane.group.0, &lane.key))
        });
        no
    }

    fn push(&mut self, state: LaneState) -> LaneNo {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        let before = (self.chunks.len() - 1) * CHUNK_LEN;
        let chunk = self.chunks.last_mut().expect("a chunk was added above");
        chunk.push(state);
        LaneNo((before + chunk.len() - 1) as u32)
    }

    fn hash(&self, group: GroupNo, key: &Option<Key>) -> u64 {
        self.hasher.hash_one((group.0, key))
    }

    /// Returns a lane's name.
    pub(super) fn name(&self, no: LaneNo) -> Lane {
        let state = &self[no];
        Lane { group: self.groups.name(state.group).clone(), key: state.key.clone() }
    }

    /// Returns the name of a lane's group.
    pub(super) fn group(&self, no: LaneNo) -> &Group {
        self.groups.name(self[no].group)
    }

    /// Returns the names of all groups that ever had a lane.
    pub(super) fn groups(&self) -> &[Group] {
        self.groups.names()
    }

    /// Removes a lane: another one may get its number.
    pub(super) fn remove(&mut self, no: LaneNo) {
        let state = &self[no];
        let hash = self.hash(state.group, &state.key);
        if let Ok(found) = self.by_name.find_entry(hash, |other| *other == no) {
            found.remove();
            self.free.push(no);
            self[no].key = None;
        }
    }

    /// Frees the memory of many lanes once none is left.
    pub(super) fn trim(&mut self) {
        if self.by_name.is_empty() && self.chunks.len() > 1 {
            self.chunks = Vec::new();
            self.free = Vec::new();
            self.by_name = HashTable::new();
        }
    }

    /// Returns every number, including those that no lane has.
    pub(super) fn numbers(&self) -> impl Iterator<Item = LaneNo> + use<> {
        let len = self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_LEN + last.len());
        (0..len as u32).map(LaneNo)
    }

    /// Returns the numbers of all lanes.
    #[cfg(test)]
    pub(super) fn lanes(&self) -> impl Iterator<Item = LaneNo> {
        self.by_name.iter().copied()
    }
}

fn state_at(chunks: &[Vec<LaneState>], no: LaneNo) -> &LaneState {
    &chunks[no.0 as usize / CHUNK_LEN][no.0 as usize % CHUNK_LEN]
}

impl Index<LaneNo> for LaneSlab {
    type Output = LaneState;
    fn index(&self, no: LaneNo) -> &LaneState {
        state_at(&self.chunks, no)
    }
}

impl IndexMut<LaneNo> for LaneSlab {
    fn index_mut(&mut self, no: LaneNo) -> &mut LaneState {
        &mut self.chunks[no.0 as usize / CHUNK_LEN][no.0 as usize % CHUNK_LEN]
    }
}
