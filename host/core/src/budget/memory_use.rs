//! What the memory of a host is used for, and how much of it each use may have.

use crate::bounds;

/// A use of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryUse {
    /// Attempts of jobs: the memories of their sandboxes, their payloads, and what they have given to the host.
    Attempts,
    /// Results of jobs, and jobs that attempts have enqueued, until the store has them.
    Unwritten,
    /// Calls of subscribers by live broadcasts of this depth, from 1, and their replies.
    Broadcasts {
        /// The depth of the broadcast.
        depth: u32,
    },
    /// Calls of `describe`.
    Describe,
    /// Processes that read and compile components.
    Compile,
    /// Bodies of requests, until they are answered and the store has them.
    Requests,
    /// Results, events and pages on their way to clients.
    Readers,
    /// Payloads that are parsed to be checked.
    Parsing,
    /// Pages that free sandboxes keep for the next attempt.
    Kept,
    /// Pages with which sandboxes began, and to which they have written, as far as they are measured and not reserved.
    FirstPages,
}

const DEPTHS: usize = bounds::BROADCAST_DEPTH_MAX as usize;
pub(super) const USES: usize = 9 + DEPTHS;

impl MemoryUse {
    /// Every use.
    pub fn all() -> impl Iterator<Item = MemoryUse> {
        let depths = (1..=bounds::BROADCAST_DEPTH_MAX).map(|depth| MemoryUse::Broadcasts { depth });
        let others = [
            MemoryUse::Attempts,
            MemoryUse::Unwritten,
            MemoryUse::Describe,
            MemoryUse::Compile,
            MemoryUse::Requests,
            MemoryUse::Readers,
            MemoryUse::Kept,
            MemoryUse::Parsing,
            MemoryUse::FirstPages,
        ];
        others.into_iter().chain(depths)
    }

    pub(super) fn index(self) -> usize {
        match self {
            MemoryUse::Attempts => 0,
            MemoryUse::Unwritten => 1,
            MemoryUse::Describe => 2,
            MemoryUse::Compile => 3,
            MemoryUse::Requests => 4,
            MemoryUse::Readers => 5,
            MemoryUse::Kept => 6,
            MemoryUse::Parsing => 7,
            MemoryUse::FirstPages => 8,
            MemoryUse::Broadcasts { depth } => 8 + (depth.max(1) as usize).min(DEPTHS),
        }
    }

    /// Returns the name of the use, without a broadcast's depth.
    pub fn as_str(self) -> &'static str {
        match self {
            MemoryUse::Attempts => "attempts",
            MemoryUse::Unwritten => "unwritten",
            MemoryUse::Broadcasts { .. } => "broadcasts",
            MemoryUse::Describe => "describe",
            MemoryUse::Compile => "compile",
            MemoryUse::Requests => "requests",
            MemoryUse::Readers => "readers",
            MemoryUse::Kept => "kept",
            MemoryUse::Parsing => "parsing",
            MemoryUse::FirstPages => "first-pages",
        }
    }

    /// Returns the bytes of a budget of `total` that only this use takes.
    pub fn floor(self, total: u64) -> u64 {
        match self {
            MemoryUse::Attempts => total / 8,
            MemoryUse::Describe => total / 32,
            MemoryUse::Broadcasts { .. } | MemoryUse::Requests | MemoryUse::Readers => total / 128,
            MemoryUse::Unwritten
            | MemoryUse::Compile
            | MemoryUse::Kept
            | MemoryUse::Parsing
            | MemoryUse::FirstPages => 0,
        }
    }

    /// Returns the most bytes of a budget of `total` that this use has at once.
    pub fn most(self, total: u64) -> u64 {
        let all_floors: u64 = MemoryUse::all().map(|each| each.floor(total)).sum();
        let without_floors_of_others = total - all_floors + self.floor(total);
        match self {
            MemoryUse::Attempts | MemoryUse::Unwritten | MemoryUse::Kept | MemoryUse::FirstPages => {
                without_floors_of_others
            }
            MemoryUse::Describe | MemoryUse::Compile | MemoryUse::Broadcasts { .. } => total / 2,
            MemoryUse::Requests | MemoryUse::Readers | MemoryUse::Parsing => total / 4,
        }
    }
}
