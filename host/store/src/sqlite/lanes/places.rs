//! Where each lane is kept. There may be as many as keys, so that a byte for each counts.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;
use smallvec::SmallVec;
use wharf_core::ids::{Group, JobId};
use wharf_core::key::Lane;

use super::{Line, Stand};

/// A lane's place in memory. Good until the transaction ends, and longer for a lane in which jobs wait or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sqlite) struct LaneNo(pub(in crate::sqlite) u32);

#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) lane: Lane,
    pub(super) stand: Stand,
    /// Whether the transaction under way has changed it.
    pub(super) touched: bool,
    /// One for each task that has ready jobs in it: mostly one.
    pub(super) lines: SmallVec<[Line; 1]>,
    /// The jobs that run.
    pub(super) holders: SmallVec<[JobId; 1]>,
}

#[derive(Debug, Default)]
pub(super) struct Places {
    lanes: Vec<LaneState>,
    /// Places in `lanes` that nobody has.
    free: Vec<LaneNo>,
    /// Finds a lane's place without a second copy of its name. Keys are made by others: the hasher is one that they cannot
    /// make collide.
    by_lane: HashTable<LaneNo>,
    hasher: RandomState,
    /// One copy of each group's name for all its lanes.
    groups: HashSet<Group>,
}

impl Places {
    pub(super) fn find(&self, lane: &Lane) -> Option<LaneNo> {
        let is_it = |no: &LaneNo| self[*no].lane == *lane;
        self.by_lane.find(self.hasher.hash_one(lane), is_it).copied()
    }

    /// Gives a place to a lane that has none.
    pub(super) fn add(&mut self, lane: &Lane) -> LaneNo {
        let lane = Lane { group: self.one_name(&lane.group), key: lane.key.clone() };
        let hash = self.hasher.hash_one(&lane);
        let stand = Stand { turn: 0, open: true };
        let fresh = LaneState { lane, stand, touched: false, lines: SmallVec::new(), holders: SmallVec::new() };
        let no = match self.free.pop() {
            Some(no) => {
                self[no] = fresh;
                no
            }
            None => {
                self.lanes.push(fresh);
                LaneNo(self.lanes.len() as u32 - 1)
            }
        };
        let Places { lanes, hasher, .. } = self;
        self.by_lane.insert_unique(hash, no, |no| hasher.hash_one(&lanes[no.0 as usize].lane));
        no
    }

    fn one_name(&mut self, group: &Group) -> Group {
        if let Some(known) = self.groups.get(group) {
            return known.clone();
        }
        self.groups.insert(group.clone());
        group.clone()
    }

    pub(super) fn free(&mut self, no: LaneNo) {
        let hash = self.hasher.hash_one(&self[no].lane);
        if let Ok(found) = self.by_lane.find_entry(hash, |other| *other == no) {
            found.remove();
            self.free.push(no);
        }
    }

    /// Every place, also those that nobody has.
    pub(super) fn all(&self) -> impl Iterator<Item = LaneNo> + use<> {
        (0..self.lanes.len() as u32).map(LaneNo)
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> impl Iterator<Item = LaneNo> {
        self.by_lane.iter().copied()
    }
}

impl Index<LaneNo> for Places {
    type Output = LaneState;
    fn index(&self, no: LaneNo) -> &LaneState {
        &self.lanes[no.0 as usize]
    }
}

impl IndexMut<LaneNo> for Places {
    fn index_mut(&mut self, no: LaneNo) -> &mut LaneState {
        &mut self.lanes[no.0 as usize]
    }
}
