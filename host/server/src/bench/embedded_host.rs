//! A temporary host in this process, whose notices are counted as they are sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::Notify;
use wharf_core::ids::JobId;
use wharf_core::job::StateName;
use wharf_core::outcome::OutcomeKind;
use wharf_engine::Engine;
use wharf_runner::{Enqueued, Host, Notice, Parts, Request};

use crate::cli_error::{CliError, ExitStatus};
use crate::in_process_engine::{compile_in_child, engine};
use crate::open_store::open_store;

use super::workspace::Workspace;
use crate::config::Settings;

/// The concurrency limits of a host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capacity {
    pub(super) attempts: u32,
    pub(super) broadcasts: u32,
    pub(super) broadcast_calls: u32,
}

impl Capacity {
    /// Returns the limits in the settings.
    pub(super) fn of(settings: &Settings) -> Capacity {
        Capacity {
            attempts: settings.attempts_at_once,
            broadcasts: settings.broadcasts_at_once,
            broadcast_calls: settings.broadcast_calls,
        }
    }
}

/// A running host, with its engine and the counts of its notices.
pub(super) struct EmbeddedHost {
    pub(super) host: Host,
    pub(super) engine: Arc<Engine>,
    pub(super) notices: Arc<NoticeCounts>,
}

/// The notices of a host that benchmarks wait for.
#[derive(Debug, Default)]
pub(super) struct NoticeCounts {
    succeeded: AtomicU64,
    others: AtomicU64,
    /// The number of successes that the waiting task needs. It is woken only then: waking it at each success would distort the
    /// measurement.
    awaited: AtomicU64,
    changed: Notify,
    /// Locked for one assignment.
    first_report: Mutex<Option<String>>,
    /// The running times of attempts that their timeout ended.
    timed_out: Mutex<Vec<Duration>>,
}

impl NoticeCounts {
    fn record(&self, notice: &Notice) {
        match notice {
            Notice::JobEnded { state: StateName::Succeeded, .. } => {
                let succeeded = self.succeeded.fetch_add(1, Ordering::SeqCst) + 1;
                if succeeded == self.awaited.load(Ordering::SeqCst) {
                    self.changed.notify_waiters();
                }
            }
            Notice::JobEnded { .. } => {
                self.others.fetch_add(1, Ordering::SeqCst);
                self.changed.notify_waiters();
            }
            Notice::AttemptEnded(ended) if ended.kind == OutcomeKind::TimedOut => {
                self.timed_out.lock().unwrap_or_else(PoisonError::into_inner).push(ended.usage.wall);
            }
            Notice::AttemptEnded(ended) if ended.kind != OutcomeKind::Returned => {
                let mut first = self.first_report.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| ended.report.clone());
            }
            Notice::PluginRefused { file, why, .. } => {
                let mut first = self.first_report.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| format!("{file}: {why}"));
            }
            _ => {}
        }
    }

    /// Returns the number of jobs that succeeded so far.
    pub(super) fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::SeqCst)
    }

    pub(super) fn timed_out(&self) -> Vec<Duration> {
        self.timed_out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` jobs have succeeded. Only one task may wait at a time.
    ///
    /// # Errors
    /// When a job does not succeed.
    pub(super) async fn until(&self, count: u64) -> anyhow::Result<()> {
        self.awaited.store(count, Ordering::SeqCst);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.others.load(Ordering::SeqCst) > 0 {
                return Err(self.failure("a job did not succeed").into());
            }
            if self.succeeded() >= count {
                return Ok(());
            }
            changed.await;
        }
    }

    pub(super) fn failure(&self, what: &str) -> CliError {
        let first = self.first_report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        CliError::new(
            ExitStatus::NotDone,
            format!("{what}: {}", first.unwrap_or_else(|| "no reason was reported".to_owned())),
        )
    }
}

impl EmbeddedHost {
    /// Starts a host on the store of the workspace, and waits until its plugins are loaded.
    pub(super) async fn start(
        workspace: &Workspace,
        settings: &Settings,
        capacity: Capacity,
    ) -> anyhow::Result<EmbeddedHost> {
        EmbeddedHost::start_on(workspace, settings, capacity, &workspace.store()).await
    }

    /// Starts a host on a store, and waits until the plugins of the workspace are loaded.
    pub(super) async fn start_on(
        workspace: &Workspace,
        settings: &Settings,
        capacity: Capacity,
        store: &str,
    ) -> anyhow::Result<EmbeddedHost> {
        let engine_settings = wharf_engine::Settings {
            attempts: capacity.attempts,
            broadcast_calls: capacity.broadcast_calls,
            ..settings.engine_settings(compile_in_child()?)
        };
        let engine = engine(engine_settings)?;
        let settings = wharf_runner::Settings {
            attempts: capacity.attempts,
            broadcasts: capacity.broadcasts,
            ..settings.host_settings("bench".to_owned(), workspace.plugins())
        };
        let notices = Arc::new(NoticeCounts::default());
        let recording = Arc::clone(&notices);
        let parts = Parts { store: open_store(store).await?, engine: Arc::clone(&engine) };
        let host = Host::start(parts, settings, move |notice| recording.record(notice)).await;
        let host = host.map_err(|error| CliError::new(ExitStatus::CannotStart, error.to_string()))?;
        host.ready().await;
        if !host.catalog().refused().is_empty() {
            return Err(notices.failure("a plugin was refused").into());
        }
        Ok(EmbeddedHost { host, engine, notices })
    }

    pub(super) async fn enqueue(&self, requests: Vec<Request>) -> anyhow::Result<Vec<JobId>> {
        let enqueued = self.host.enqueue(requests).await.map_err(|error| CliError::usage(error.to_string()))?;
        enqueued.into_iter().map(job_id).collect()
    }

    /// Runs one job, and returns when its result is there.
    pub(super) async fn single(&self, request: Request, max: Duration) -> anyhow::Result<()> {
        let ids = self.enqueue(vec![request]).await?;
        let id = *ids.first().context("the host returned no job")?;
        let seen = self.host.wait(id, max).await?;
        match seen.map(|seen| seen.job.status.state.name()) {
            Some(StateName::Succeeded) => Ok(()),
            Some(StateName::Failed | StateName::Cancelled) => Err(self.notices.failure("a job did not succeed").into()),
            _ => bail!("the job {id} did not end within {max:?}"),
        }
    }
}

fn job_id(enqueued: Enqueued) -> anyhow::Result<JobId> {
    match enqueued {
        Enqueued::Added(id) | Enqueued::Duplicate(id) => Ok(id),
        Enqueued::Discarded { .. } => {
            let text =
                "a job was discarded, because its lane is full and its task declares `on-conflict = \"discard\"`";
            Err(CliError::new(ExitStatus::NotDone, text).into())
        }
    }
}
