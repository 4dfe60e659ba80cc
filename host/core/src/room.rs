//! The room of a node: what attempts take of it, and who may overtake a job that does not fit yet.
//!
//! Attempts differ in what they take. A job that comes to its turn and does not fit must wait for others to end. Three
//! things must hold meanwhile: it gets its room once enough others have ended, even while small jobs never cease to
//! come; others are not held up by it; and what stays free for it stays small. So jobs may overtake it, but those that
//! did and still run hold at most half of what was free for both, and leave it what it needs of the whole. One of them
//! may always run. [`Room::may_overtake`] is this rule.

/// The room that an attempt of a task takes, or that a node has for attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskCost {
    /// Number of ordinary sandboxes. An attempt takes at least one.
    pub sandboxes: u32,
    /// Bytes of memory. A task of which nothing is known takes none.
    pub bytes: u64,
}

impl TaskCost {
    /// The cost of a task that is not listed: one ordinary sandbox.
    pub const ORDINARY: TaskCost = TaskCost { sandboxes: 1, bytes: 0 };
    /// Nothing.
    pub const NOTHING: TaskCost = TaskCost { sandboxes: 0, bytes: 0 };

    /// Returns the cost of a job with a payload of this size.
    pub fn with_payload(self, payload_bytes: u64) -> TaskCost {
        TaskCost { bytes: self.bytes.saturating_add(payload_bytes), ..self }
    }

    /// Returns the sum of two costs; too much is as good as all there is.
    pub fn plus(self, other: TaskCost) -> TaskCost {
        TaskCost {
            sandboxes: self.sandboxes.saturating_add(other.sandboxes),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Returns what is left of this cost without another.
    pub fn minus(self, other: TaskCost) -> TaskCost {
        TaskCost {
            sandboxes: self.sandboxes.saturating_sub(other.sandboxes),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// The room that a node has for attempts, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// All that it has. A task that costs more is taken to cost this: it runs alone.
    pub total: TaskCost,
    /// The room that no attempt has.
    pub free: TaskCost,
    /// The room of those running attempts that overtook a job which did not fit.
    pub overtaking: TaskCost,
}

impl Room {
    /// Room without bounds.
    pub const UNLIMITED: Room = {
        let all = TaskCost { sandboxes: u32::MAX, bytes: u64::MAX };
        Room { total: all, free: all, overtaking: TaskCost::NOTHING }
    };

    /// Returns what a task of this cost takes here: at least a sandbox, and at most all there is.
    pub fn bounded(&self, cost: TaskCost) -> TaskCost {
        TaskCost { sandboxes: cost.sandboxes.max(1).min(self.total.sandboxes), bytes: cost.bytes.min(self.total.bytes) }
    }

    /// Returns how many jobs of this cost fit.
    pub fn count_of(&self, cost: TaskCost) -> u32 {
        let sandboxes = self.free.sandboxes.checked_div(cost.sandboxes).unwrap_or(u32::MAX);
        let by_bytes = self.free.bytes.checked_div(cost.bytes).unwrap_or(u64::MAX);
        sandboxes.min(u32::try_from(by_bytes).unwrap_or(u32::MAX))
    }

    /// Returns true if a job of this cost fits.
    pub fn fits(&self, cost: TaskCost) -> bool {
        cost.sandboxes <= self.free.sandboxes && cost.bytes <= self.free.bytes
    }

    /// Returns true if a job of this cost fits and may start before one of cost `waiting`, whose turn it is and which
    /// does not fit.
    pub fn may_overtake(&self, cost: TaskCost, waiting: TaskCost) -> bool {
        if !self.fits(cost) {
            return false;
        }
        let Room { total, free, overtaking } = *self;
        let sandboxes = share_allows(
            (u64::from(total.sandboxes), u64::from(free.sandboxes), u64::from(overtaking.sandboxes)),
            u64::from(cost.sandboxes),
            u64::from(waiting.sandboxes),
        );
        let bytes = share_allows((total.bytes, free.bytes, overtaking.bytes), cost.bytes, waiting.bytes);
        // Every attempt has a sandbox: without one nobody overtakes.
        overtaking.sandboxes == 0 || (sandboxes && bytes)
    }

    /// Takes the room of a job that fits.
    pub fn take(&mut self, cost: TaskCost, overtakes: bool) {
        self.free = self.free.minus(cost);
        if overtakes {
            self.overtaking = self.overtaking.plus(cost);
        }
    }
}

/// Returns true if a job that takes `cost` of one kind of room leaves enough of it to one that waits for `waiting`.
fn share_allows((total, free, overtaking): (u64, u64, u64), cost: u64, waiting: u64) -> bool {
    // Of this kind there is enough for both.
    if cost == 0 || free.saturating_sub(cost) >= waiting {
        return true;
    }
    let half = free.saturating_add(overtaking) / 2;
    overtaking.saturating_add(cost) <= half.min(total.saturating_sub(waiting))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandboxes(sandboxes: u32) -> TaskCost {
        TaskCost { sandboxes, bytes: 0 }
    }

    fn room(total: u32, free: u32, overtaking: u32) -> Room {
        Room { total: sandboxes(total), free: sandboxes(free), overtaking: sandboxes(overtaking) }
    }

    #[test]
    fn a_task_takes_at_least_a_sandbox_and_at_most_all_there_is() {
        let all = Room { total: TaskCost { sandboxes: 8, bytes: 100 }, ..room(8, 8, 0) };
        let cost = |sandboxes, bytes| all.bounded(TaskCost { sandboxes, bytes });
        assert_eq!(cost(0, 7), TaskCost { sandboxes: 1, bytes: 7 });
        assert_eq!(cost(9, 101), all.total);
    }

    #[test]
    fn those_that_overtake_hold_half_of_what_was_free_and_one_may_always() {
        let one = TaskCost::ORDINARY;
        let may = |free, overtaking| room(64, free, overtaking).may_overtake(one, sandboxes(20));
        assert!(may(1, 0), "one may always");
        assert!(!may(0, 0) && !may(1, 1), "half of two is taken");
        assert!(may(5, 1) && may(4, 2) && !may(3, 3));
        // It needs 60 of 64: those that overtake leave it these, however much is free now.
        let may = |free, overtaking| room(64, free, overtaking).may_overtake(one, sandboxes(60));
        assert!(may(40, 3) && !may(40, 4));
        assert!(room(64, 63, 0).may_overtake(one, sandboxes(64)) && !room(64, 62, 1).may_overtake(one, sandboxes(64)));
    }

    #[test]
    fn of_what_is_there_for_both_all_may_take() {
        let waits = TaskCost { sandboxes: 1, bytes: 80 };
        let (total, free) = (TaskCost { sandboxes: 64, bytes: 100 }, TaskCost { sandboxes: 40, bytes: 20 });
        let with =
            |bytes, overtaking| Room { total, free, overtaking }.may_overtake(TaskCost { sandboxes: 1, bytes }, waits);
        let many = TaskCost { sandboxes: 20, bytes: 4 };
        assert!(with(0, many), "it waits for bytes, not for sandboxes");
        assert!(with(8, many) && !with(9, many));
        assert!(with(20, TaskCost::NOTHING) && !with(21, TaskCost::NOTHING), "the first one must fit, too");
    }

    #[test]
    fn room_without_bounds_stays_so_for_any_number_of_jobs() {
        let mut room = Room::UNLIMITED;
        let cost = room.bounded(TaskCost { sandboxes: 16, bytes: 1 << 30 });
        (0..1000).for_each(|_| room.take(cost, false));
        assert!(room.fits(cost) && room.count_of(cost) > 1_000_000);
        assert_eq!(room.count_of(TaskCost::ORDINARY), room.free.sandboxes);
    }
}
