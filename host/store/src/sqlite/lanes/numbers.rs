//! The numbers that stand for lanes and groups in memory, in place of their names.

use std::collections::HashMap;

use wharf_core::ids::Group;

/// A lane's number in memory. It is valid until the transaction ends, and longer for a lane with waiting or running jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::sqlite) struct LaneNo(pub(in crate::sqlite) u32);

/// A group's number in [`Groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupNo(pub(super) u32);

/// The names of groups. They are few, and never removed.
#[derive(Debug, Default)]
pub(super) struct Groups {
    names: Vec<Group>,
    numbers: HashMap<Group, GroupNo>,
}

impl Groups {
    /// Returns the number of a group, if it has one.
    pub(super) fn find(&self, name: &Group) -> Option<GroupNo> {
        self.numbers.get(name).copied()
    }

    /// Returns the number of a group, and gives it one if it has none.
    pub(super) fn find_or_add(&mut self, name: &Group) -> GroupNo {
        if let Some(known) = self.find(name) {
            return known;
        }
        let no = GroupNo(self.names.len() as u32);
        self.names.push(name.clone());
        self.numbers.insert(name.clone(), no);
        no
    }

    /// Returns the name of a group.
    pub(super) fn name(&self, no: GroupNo) -> &Group {
        &self.names[no.0 as usize]
    }

    /// Returns the names of all groups.
    pub(super) fn names(&self) -> &[Group] {
        &self.names
    }
}
