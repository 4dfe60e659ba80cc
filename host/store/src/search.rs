//! A search in progress: which jobs were looked at and found, and when it ends.

use std::time::Instant;

use wharf_core::bounds;
use wharf_core::find::{AtStart, Candidate, JobCursor, JobOrder, WaitView};
use wharf_core::job::Job;
use wharf_core::outcome::Report;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::time::Timestamp;

use crate::store::{FindPage, FindRequest};

/// A search for jobs. A store offers it the jobs that may meet the query, in the order of the list.
pub(crate) struct Search {
    pub(crate) request: FindRequest,
    pub(crate) view: WaitView,
    started: Instant,
    page: FindPage,
}

/// A job that may meet the query.
pub(crate) struct Offered {
    /// The job, with its payload if the query needs it.
    pub(crate) job: Job,
    /// The digests of its plugin in its attempts that ended without a result, if the query needs them.
    pub(crate) digests: Vec<String>,
    /// False if the job waits and may not start yet, as far as its store has noticed.
    pub(crate) is_due: bool,
}

impl Search {
    pub(crate) fn new(request: &FindRequest, view: WaitView) -> Search {
        Search { request: request.clone(), view, started: Instant::now(), page: FindPage::default() }
    }

    /// Returns the place from which the search goes on.
    pub(crate) fn place(&self) -> Option<JobCursor> {
        self.page.next.or(self.request.after)
    }

    /// Counts jobs up to this place as looked at. `at` is when the last one of them was enqueued or finished.
    pub(crate) fn look_at(&mut self, jobs: u64, last: JobCursor, at: Timestamp) {
        self.page.looked_at += jobs;
        self.page.until = Some(at);
        self.page.next = Some(last);
    }

    fn max(&self) -> usize {
        self.request.max.clamp(1, bounds::PAGE_MAX) as usize
    }

    /// Takes a job if it meets the query. Returns true if the page is full: one job more than it holds was found.
    pub(crate) fn offer(&mut self, offered: Offered) -> bool {
        let Offered { job, digests, is_due } = offered;
        let candidate = Candidate { job: &job, payload: &job.payload, digests: &digests, is_due };
        let is_listed = self.request.order == JobOrder::Newest || job.finished_at.is_some();
        let met = match self.request.as_of {
            _ if !is_listed => AtStart::NotMet,
            Some(as_of) => self.request.query.at_start(candidate, &self.view, as_of.at),
            None if self.request.query.matches(candidate, &self.view) => AtStart::Met,
            None => AtStart::NotMet,
        };
        match met {
            AtStart::Met => {
                self.page.moved_on_before.push(self.page.moved_on);
                let report = job.report.map(first_line);
                self.page.jobs.push(Job { payload: SharedBytes::default(), result: None, report, ..job });
            }
            AtStart::MovedOn => self.page.moved_on += 1,
            AtStart::NotMet => {}
        }
        self.page.jobs.len() > self.max()
    }

    /// Returns true if the search has looked for long enough.
    pub(crate) fn is_over(&self) -> bool {
        let FindRequest { rows_max, time, .. } = self.request;
        let elapsed = self.started.elapsed();
        let time_is_over = elapsed >= time && self.page.looked_at >= bounds::FIND_ROWS_MIN;
        self.page.looked_at >= rows_max || time_is_over || elapsed >= time.saturating_mul(bounds::FIND_TIMES_MAX)
    }

    /// Returns the page of a search that may go on.
    pub(crate) fn paused(mut self) -> FindPage {
        if self.page.jobs.len() > self.max() {
            self.page.jobs.truncate(self.max());
            self.page.moved_on_before.truncate(self.max());
            // The next page counts those behind the last job.
            self.page.moved_on = self.page.moved_on_before.last().copied().unwrap_or_default();
            if let Some(last) = self.page.jobs.last() {
                self.page.next = Some(JobCursor::behind(last, self.request.order));
                self.page.until = Some(listed_at(last, self.request.order));
            }
        }
        self.page
    }

    /// Returns the page of a search that has looked at all jobs.
    pub(crate) fn ended(self) -> FindPage {
        FindPage { next: None, ..self.page }
    }
}

/// Returns a report with the first line of its text alone: pages of a thousand jobs would else have megabytes of text.
fn first_line(mut report: Report) -> Report {
    let end = report.text.lines().next().map_or(0, str::len);
    report.text.truncate(end);
    report.text.shrink_to_fit();
    report
}

/// Returns when a job was enqueued or finished, by the order of the list.
pub(crate) fn listed_at(job: &Job, order: JobOrder) -> Timestamp {
    match order {
        JobOrder::Newest => job.enqueued_at,
        JobOrder::Finished => job.finished_at.unwrap_or_default(),
    }
}
