//! How much memory an attempt of each task takes, learned from the attempts that have ended.
//!
//! An attempt reserves what the earlier ones of its task held at most, and not what its manifest allows: most attempts take a
//! hundredth of that. What it learned decays, so that one large attempt does not count for ever.

use std::collections::HashMap;
use std::sync::Arc;

use wharf_core::ids::TaskName;
use wharf_core::room::TaskCost;

use crate::catalog::Catalog;

/// The part of a learned peak above the last attempt's peak that is forgotten with each attempt: one of so many.
const DECAY: u64 = 16;
/// A learned peak is rounded up to a multiple of this, and of a sixteenth of itself, so that a claim's costs seldom change.
const STEP: u64 = 16 << 10;

/// The cost of an attempt of each claimable task, without its payload.
pub(crate) type TaskCosts = Arc<HashMap<TaskName, TaskCost>>;

/// The memory of all tasks.
#[derive(Default)]
pub(crate) struct TaskMemory {
    peaks: HashMap<TaskName, u64>,
    /// The costs of all tasks by the catalog of this version.
    costs: Option<(u64, TaskCosts)>,
}

impl TaskMemory {
    /// Learns from an attempt that has ended: `bytes` is what it held at most, or asked for, besides its payload.
    pub(crate) fn ended(&mut self, task: &TaskName, bytes: u64) {
        let Some(peak) = self.peaks.get_mut(task) else {
            self.peaks.insert(task.clone(), bytes);
            self.costs = None;
            return;
        };
        let before = rounded(*peak);
        *peak = if bytes >= *peak { bytes } else { *peak - (*peak - bytes) / DECAY };
        // Fewer bytes are told once they are fewer by a step and more: each change makes a list for all tasks.
        let now = rounded(*peak);
        if now > before || now < before - before / 4 {
            self.costs = None;
        }
    }

    /// Returns what an attempt of each claimable task takes, without its payload.
    pub(crate) fn costs(&mut self, catalog: &Catalog) -> TaskCosts {
        if let Some((version, costs)) = &self.costs
            && *version == catalog.version()
        {
            return Arc::clone(costs);
        }
        self.peaks.retain(|task, _| catalog.costs().contains_key(task));
        let cost = |(task, at_start): (&TaskName, &TaskCost)| {
            let learned = self.peaks.get(task).map_or(at_start.bytes, |peak| rounded(*peak));
            (task.clone(), TaskCost { bytes: learned, ..*at_start })
        };
        let costs: TaskCosts = Arc::new(catalog.costs().iter().map(cost).collect());
        self.costs = Some((catalog.version(), Arc::clone(&costs)));
        costs
    }
}

fn rounded(bytes: u64) -> u64 {
    let step = STEP.max((bytes / 16).next_power_of_two());
    bytes.div_ceil(step) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_peak_is_learned_at_once_and_forgotten_slowly() {
        let (mut memory, task) = (TaskMemory::default(), "p/t".parse().unwrap());
        memory.ended(&task, MIB);
        memory.ended(&task, 200 * MIB);
        assert_eq!(memory.peaks[&task], 200 * MIB);
        memory.ended(&task, MIB);
        assert!(memory.peaks[&task] > 180 * MIB);
        (0..100).for_each(|_| memory.ended(&task, MIB));
        assert!(memory.peaks[&task] < 2 * MIB);
    }

    #[test]
    fn what_is_told_covers_the_peak_and_little_more() {
        for bytes in [1, 100_000, MIB, 3 * MIB + 7, 200 * MIB, 1 << 30] {
            let told = rounded(bytes);
            assert!(told >= bytes && told <= bytes + bytes / 7 + STEP, "{bytes}: {told}");
        }
    }
}
