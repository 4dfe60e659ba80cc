//! Releases attempts to make room in the host's budget of memory.

use wharf_core::budget::to_release;
use wharf_core::outcome::Interruption;
use wharf_core::planner::Input;
use wharf_engine::RELEASED;

use super::Dispatch;

impl Dispatch {
    /// Releases the youngest attempt if another has waited for memory for long, or some if sandboxes have written to more of their
    /// first pages than there is room for. Has the planner claim again if there was no room for the jobs that wait.
    pub(super) fn memory_changed(&mut self) {
        let budget = self.parts.starter.engine.budget().clone();
        let attempts = &self.attempts;
        self.released.retain(|id| attempts.get(id).is_some_and(|running| running.counts));
        let (pressing, overdrawn) = (budget.take_pressing(), budget.overdrawn());
        // What the last ones hold comes back in a moment.
        if (pressing || overdrawn > 0) && self.released.is_empty() {
            let running = self.attempts.iter().filter(|(_, running)| running.counts);
            let held = running.map(|(id, running)| ((running.handle.created_at(), *id), running.room.most())).collect();
            for (_, id) in to_release(held, overdrawn.max(1)) {
                let Some(running) = self.attempts.get(&id) else { continue };
                if overdrawn > 0 {
                    self.room.reserve_first_pages(&running.task, &running.room);
                }
                running.handle.stop(Interruption::Host, RELEASED.to_owned());
                budget.count_released();
                self.released.push(id);
            }
        }
        if self.room.is_short() {
            self.planner.on(Input::Nudged, self.parts.store.now());
        }
    }
}
