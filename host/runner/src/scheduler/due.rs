//! Schedules that are due, and which of them are fired together.

use wharf_core::bounds;
use wharf_core::schedule::{DueTicks, Schedule, due_ticks};

use crate::plugin_view::PluginView;
use crate::schedule_times::{Times, TimingError};

/// Bytes of payloads of one transaction, beyond the first schedule.
const FIRED_BYTES_MAX: usize = 4 << 20;

/// A schedule that is due, and what becomes of its ticks.
pub(super) struct Due {
    pub(super) schedule: Schedule,
    pub(super) ticks: DueTicks,
    /// False if the task is on no host.
    pub(super) is_here: bool,
}

/// Returns what becomes of the ticks of a schedule; `None` if this host has nothing to do with them.
///
/// # Errors
///
/// Returns why this host cannot work out the moments of the schedule.
pub(super) fn divide(view: &PluginView, schedule: Schedule) -> Result<Option<Due>, TimingError> {
    let task = &schedule.spec.task;
    let is_here = view.catalog.task(task).is_some();
    if !is_here && view.others.runs(task, view.now) {
        return Ok(None);
    }
    let times = Times::of(&schedule.spec.timing, view.now)?;
    let mut failed = None;
    let mut next = |after| times.next(after).map_err(|error| failed = Some(error)).ok();
    let ticks = due_ticks(&schedule, view.now, &mut next);
    if let Some(failed) = failed {
        return Err(failed);
    }
    let ticks = if is_here { ticks } else { ticks.and_then(DueTicks::without_host) };
    Ok(ticks.map(|ticks| Due { schedule, ticks, is_here }))
}

/// Divides schedules into those that are fired in one transaction: it has at most so many jobs and bytes, and holds up claims for
/// milliseconds.
pub(super) fn chunks(due: Vec<Due>) -> Vec<Vec<Due>> {
    let mut chunks: Vec<Vec<Due>> = Vec::new();
    let (mut bytes, mut jobs) = (0, 0);
    for due in due {
        let (more_jobs, more_bytes) = (due.ticks.fire.len(), due.schedule.spec.payload.len() * due.ticks.fire.len());
        let is_over =
            jobs + more_jobs > bounds::SCHEDULE_JOBS_FIRED_MAX || bytes > 0 && bytes + more_bytes > FIRED_BYTES_MAX;
        if is_over || chunks.is_empty() {
            chunks.push(Vec::new());
            (bytes, jobs) = (0, 0);
        }
        (bytes, jobs) = (bytes + more_bytes, jobs + more_jobs);
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(due);
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wharf_core::schedule::{ScheduleSpec, Timing};
    use wharf_core::time::Timestamp;

    use super::*;

    fn due(ticks: usize, payload: usize) -> Due {
        let spec = ScheduleSpec {
            task: "report/build".parse().unwrap(),
            payload: vec![0; payload].into(),
            key: None,
            priority: 0,
            timing: Timing::Every(Duration::from_secs(60)),
            missed: Default::default(),
            window: bounds::SCHEDULE_WINDOW_DEFAULT,
            overlap: Default::default(),
            spread: Duration::ZERO,
            pause_after: None,
            tick_as: None,
        };
        let schedule = Schedule::new("nightly".parse().unwrap(), spec, Timestamp::ZERO);
        let fire = vec![Timestamp::ZERO; ticks];
        Due { schedule, ticks: DueTicks { fire, ..DueTicks::default() }, is_here: true }
    }

    #[test]
    fn a_transaction_has_a_bound_of_jobs_and_of_bytes() {
        let sizes = |due| chunks(due).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![]), Vec::<usize>::new());
        let all = |ticks, payload, count: usize| (0..count).map(|_| due(ticks, payload)).collect::<Vec<_>>();
        assert_eq!(sizes(all(bounds::SCHEDULE_CATCH_UP_MAX, 4, 5)), [2, 2, 1], "at most 256 jobs");
        assert_eq!(sizes(all(1, 4, 300)), [256, 44]);
        assert_eq!(sizes(all(100, 16 << 10, 5)), [2, 2, 1], "at most 4 MiB");
    }
}
