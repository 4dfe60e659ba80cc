//! What jobs are sent to: a host of the bench's own, or one that runs already.

use std::time::{Duration, Instant};

use wharf_runner::Request;

use super::ground::Ground;
use super::load::Ready;
use super::own::{Own, Size};
use super::report::Report;
use super::running::Running;
use super::wire::Place;
use crate::config::Settings;

/// Longer than this no small job takes, on any machine.
pub(super) const SINGLE_PATIENCE: Duration = Duration::from_secs(60);

pub(super) enum Target {
    Own { own: Box<Own>, ground: Ground },
    Running(Running),
}

impl Target {
    /// `place` is that of a running host, if one was named.
    pub(super) async fn make(
        ground: Ground,
        settings: &Settings,
        place: Option<Place>,
        load: &Ready,
    ) -> anyhow::Result<Target> {
        if let Some(place) = place {
            return Ok(Target::Running(Running::reach(place, &load.task).await?));
        }
        load.put(&ground)?;
        let own = Box::new(Own::start(&ground, settings, Size::of(settings)).await?);
        Ok(Target::Own { own, ground })
    }

    pub(super) fn tell(&self, settings: &Settings, report: &mut Report) {
        match self {
            Target::Own { own, ground } => {
                report.with("host", "its own, in this process");
                ground.tell(report);
                report.with("plugins", own.host.catalog().plugins().len());
                report.with("at-once", own.host.health().capacity);
                report.with("guest-threads", settings.guest_threads);
            }
            Target::Running(_) => report.with("host", settings.host.as_str()),
        }
    }

    /// Enqueues jobs in batches, and returns how long it took until all had run and that was recorded.
    pub(super) async fn run(
        &self,
        jobs: u32,
        batch: u32,
        task: &str,
        request: impl Fn(u32) -> Request,
    ) -> anyhow::Result<Duration> {
        let before = match self {
            Target::Own { own, .. } => own.heard.succeeded(),
            Target::Running(_) => 0,
        };
        let began = Instant::now();
        for first in (0..jobs).step_by(batch as usize) {
            let requests = (first..jobs.min(first.saturating_add(batch))).map(&request).collect();
            match self {
                Target::Own { own, .. } => drop(own.enqueue(requests).await?),
                Target::Running(running) => running.enqueue(requests).await?,
            }
        }
        match self {
            Target::Own { own, .. } => own.heard.until(before + u64::from(jobs)).await?,
            Target::Running(running) => running.until_all_ended(task).await?,
        }
        Ok(began.elapsed())
    }

    /// One job, from the request until the result is there.
    pub(super) async fn single(&self, request: Request) -> anyhow::Result<Duration> {
        let began = Instant::now();
        match self {
            Target::Own { own, .. } => own.single(request, SINGLE_PATIENCE).await?,
            Target::Running(running) => running.single(request, SINGLE_PATIENCE).await?,
        }
        Ok(began.elapsed())
    }

    pub(super) async fn stop(self) {
        if let Target::Own { own, .. } = self {
            own.host.stop_now().await;
        }
    }
}
