//! Finding jobs: every job is looked at.

use wharf_core::find::{JobCursor, JobOrder, WaitView};
use wharf_core::job::{Job, State};
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::queue::MemoryQueue;
use crate::search::{Offered, Search, listed_at};
use crate::store::{FindPage, FindRequest};

impl MemoryQueue {
    pub(super) fn find(&self, request: &FindRequest, now: Timestamp) -> FindPage {
        let order = request.order;
        let view = match request.as_of {
            None => self.wait_view(&request.declared, now),
            Some(_) if !request.query.needs_wait_view() => WaitView::default(),
            Some(as_of) => match self.waits_at_start.get(&as_of.operation) {
                Some(view) => view.clone(),
                // The operation has ended.
                None => return FindPage::default(),
            },
        };
        let mut search = Search::new(request, view);
        let behind = |job: &&Job| request.after.is_none_or(|after| after.is_before(job, order));
        let mut jobs: Vec<&Job> = self.jobs.values().map(|record| &record.job).filter(behind).collect();
        let digests = |id| {
            let attempts = self.jobs.get(&id).map(|record| &record.attempts).into_iter().flatten();
            attempts.filter_map(|attempt| Some(attempt.end.origin.as_ref()?.digest.clone())).collect()
        };
        match order {
            JobOrder::Newest => jobs.reverse(),
            JobOrder::Finished => {
                jobs.retain(|job| job.finished_at.is_some());
                jobs.sort_by_key(|job| std::cmp::Reverse((job.finished_at, job.id)));
            }
        }
        for job in jobs {
            if search.is_over() {
                return search.paused();
            }
            search.look_at(1, JobCursor::behind(job, order), listed_at(job, order));
            if search.offer(Offered { job: job.clone(), digests: digests(job.id), is_due: self.is_due(job, now) }) {
                return search.paused();
            }
        }
        search.ended()
    }

    /// Returns true if a job is due. A ready job stays due, even if the clock is set back.
    pub(super) fn is_due(&self, job: &Job, now: Timestamp) -> bool {
        match job.status.state {
            State::Waiting { due } => due <= now || !self.delayed.contains(&(due, job.id)),
            _ => true,
        }
    }

    pub(super) fn wait_view(&self, declared: &LimitTable, now: Timestamp) -> WaitView {
        let limits = declared.with_overrides(self.overrides.overrides());
        let mut view = WaitView { limits, holds: self.holds.clone(), now, ..WaitView::default() };
        self.running.iter().for_each(|(lane, holders)| view.add_running(lane, holders.len() as u32));
        view
    }
}
