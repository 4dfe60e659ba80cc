//! The target of a benchmark's jobs: a temporary host in this process, or a host that runs already.

use std::time::{Duration, Instant};

use wharf_runner::Request;

use super::embedded_host::{Capacity, EmbeddedHost};
use super::load::Load;
use super::raw_http::HostAddress;
use super::remote_host::RemoteHost;
use super::report::BenchReport;
use super::workspace::Workspace;
use crate::config::Settings;

/// The timeout of a small job, which no machine reaches.
pub(super) const JOB_TIMEOUT: Duration = Duration::from_secs(60);

/// The host that runs the jobs of a benchmark.
pub(super) enum Target {
    Embedded { embedded: Box<EmbeddedHost>, workspace: Workspace },
    Remote(RemoteHost),
}

impl Target {
    /// Connects to the running host at `address`, or starts a temporary one without an address.
    pub(super) async fn open(
        workspace: Workspace,
        settings: &Settings,
        address: Option<HostAddress>,
        load: &Load,
    ) -> anyhow::Result<Target> {
        if let Some(address) = address {
            return Ok(Target::Remote(RemoteHost::reach(address, &load.task).await?));
        }
        load.put(&workspace)?;
        let embedded = Box::new(EmbeddedHost::start(&workspace, settings, Capacity::of(settings)).await?);
        Ok(Target::Embedded { embedded, workspace })
    }

    /// Adds the properties of the host to the report.
    pub(super) fn describe(&self, settings: &Settings, report: &mut BenchReport) {
        match self {
            Target::Embedded { embedded, workspace } => {
                report.with("host", "its own, in this process");
                workspace.describe(report);
                report.with("plugins", embedded.host.catalog().plugins().len());
                report.with("at-once", embedded.host.health().capacity);
                report.with("guest-threads", settings.guest_threads);
            }
            Target::Remote(_) => report.with("host", settings.host.as_str()),
        }
    }

    /// Enqueues jobs in batches, and returns the time until all of them have ended and that is recorded.
    pub(super) async fn run(
        &self,
        jobs: u32,
        batch: u32,
        task: &str,
        request: impl Fn(u32) -> Request,
    ) -> anyhow::Result<Duration> {
        let before = match self {
            Target::Embedded { embedded, .. } => embedded.notices.succeeded(),
            Target::Remote(_) => 0,
        };
        let started = Instant::now();
        for first in (0..jobs).step_by(batch as usize) {
            let requests = (first..jobs.min(first.saturating_add(batch))).map(&request).collect();
            match self {
                Target::Embedded { embedded, .. } => drop(embedded.enqueue(requests).await?),
                Target::Remote(remote) => remote.enqueue(requests).await?,
            }
        }
        match self {
            Target::Embedded { embedded, .. } => embedded.notices.until(before + u64::from(jobs)).await?,
            Target::Remote(remote) => remote.until_all_ended(task).await?,
        }
        Ok(started.elapsed())
    }

    /// Runs one job, and returns the time from the request until the result is there.
    pub(super) async fn single(&self, request: Request) -> anyhow::Result<Duration> {
        let started = Instant::now();
        match self {
            Target::Embedded { embedded, .. } => embedded.single(request, JOB_TIMEOUT).await?,
            Target::Remote(remote) => remote.single(request, JOB_TIMEOUT).await?,
        }
        Ok(started.elapsed())
    }

    pub(super) async fn stop(self) {
        if let Target::Embedded { embedded, .. } = self {
            embedded.host.stop_now().await;
        }
    }
}
