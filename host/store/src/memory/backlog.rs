//! What waits, by task: every job is looked at.

use std::sync::Arc;

use wharf_core::backlog::Backlog;
use wharf_core::job::State;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::queue::MemoryQueue;

impl MemoryQueue {
    pub(super) fn backlog(&self, declared: &Arc<LimitTable>, now: Timestamp) -> Backlog {
        let view = self.wait_view(declared, now);
        let mut backlog = Backlog::of_running(&view);
        for job in self.jobs.values().map(|record| &record.job) {
            match job.status.state {
                State::Waiting { due } => {
                    backlog.task(&job.task).waiting += 1;
                    if self.is_due(job, now) {
                        backlog.add_due(&view, (&job.task, &job.lane), 1, due);
                    } else {
                        backlog.add_delayed(&job.task, job.status.attempt);
                    }
                }
                State::Running { .. } => backlog.task(&job.task).running += 1,
                State::Succeeded | State::Failed | State::Cancelled => {}
            }
        }
        backlog
    }
}
