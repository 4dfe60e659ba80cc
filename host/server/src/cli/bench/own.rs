//! A host of the bench's own, in this process: what it tells is counted where it is told.

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

use super::super::cli_error::{Ending, Exit};
use super::super::in_process::compile_in_child;
use super::super::open_store;
use super::super::serve;
use super::ground::Ground;
use crate::config::Settings;

/// How much of everything it has at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) attempts: u32,
    pub(super) broadcasts: u32,
    pub(super) broadcast_calls: u32,
}

impl Size {
    /// What the settings say.
    pub(super) fn of(settings: &Settings) -> Size {
        Size {
            attempts: settings.attempts_at_once,
            broadcasts: settings.broadcasts_at_once,
            broadcast_calls: settings.broadcast_calls,
        }
    }
}

pub(super) struct Own {
    pub(super) host: Host,
    pub(super) engine: Arc<Engine>,
    pub(super) heard: Arc<Heard>,
}

/// What the host has told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    succeeded: AtomicU64,
    others: AtomicU64,
    /// How many somebody waits for: to wake them at each one would be measured, too.
    awaited: AtomicU64,
    changed: Notify,
    /// Locked for one assignment.
    first_report: Mutex<Option<String>>,
    /// How long attempts ran that were ended by their timeout.
    timed_out: Mutex<Vec<Duration>>,
}

impl Heard {
    fn hear(&self, notice: &Notice) {
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
                self.timed_out.lock().unwrap_or_else(PoisonError::into_inner).push(ended.bill.wall);
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

    /// Jobs that succeeded so far.
    pub(super) fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::SeqCst)
    }

    pub(super) fn timed_out(&self) -> Vec<Duration> {
        self.timed_out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many jobs have succeeded. One at a time may wait.
    pub(super) async fn until(&self, count: u64) -> anyhow::Result<()> {
        self.awaited.store(count, Ordering::SeqCst);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.others.load(Ordering::SeqCst) > 0 {
                return Err(self.went_wrong("a job did not succeed").into());
            }
            if self.succeeded() >= count {
                return Ok(());
            }
            changed.await;
        }
    }

    pub(super) fn went_wrong(&self, what: &str) -> Ending {
        let first = self.first_report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ending::new(Exit::NotDone, format!("{what}: {}", first.unwrap_or_else(|| "nobody said why".to_owned())))
    }
}

impl Own {
    /// Starts it, and waits until its plugins are loaded.
    pub(super) async fn start(ground: &Ground, settings: &Settings, size: Size) -> anyhow::Result<Own> {
        Own::start_on(ground, settings, size, &ground.store()).await
    }

    pub(super) async fn start_on(ground: &Ground, settings: &Settings, size: Size, store: &str) -> anyhow::Result<Own> {
        let engine = serve::engine(wharf_engine::Settings {
            attempts: size.attempts,
            broadcast_calls: size.broadcast_calls,
            guest_threads: settings.guest_threads as usize,
            cache_dir: settings.cache_dir.clone(),
            compile: compile_in_child()?,
        })?;
        let wanted = wharf_runner::Settings {
            attempts: size.attempts,
            broadcasts: size.broadcasts,
            ..serve::host_settings(settings, "bench".to_owned(), ground.plugins())
        };
        let heard = Arc::new(Heard::default());
        let hearing = Arc::clone(&heard);
        let parts = Parts { store: open_store::store(store).await?, engine: Arc::clone(&engine) };
        let host = Host::start(parts, wanted, move |notice| hearing.hear(notice)).await;
        let host = host.map_err(|error| Ending::new(Exit::CannotStart, error.to_string()))?;
        host.ready().await;
        if !host.catalog().refused().is_empty() {
            return Err(heard.went_wrong("a plugin was refused").into());
        }
        Ok(Own { host, engine, heard })
    }

    pub(super) async fn enqueue(&self, requests: Vec<Request>) -> anyhow::Result<Vec<JobId>> {
        let enqueued = self.host.enqueue(requests).await.map_err(|error| Ending::usage(error.to_string()))?;
        enqueued.into_iter().map(added).collect()
    }

    /// From the request until the result is there.
    pub(super) async fn single(&self, request: Request, max: Duration) -> anyhow::Result<()> {
        let ids = self.enqueue(vec![request]).await?;
        let id = *ids.first().context("the host did not say what became of the job")?;
        let seen = self.host.wait(id, max).await?;
        match seen.map(|seen| seen.job.standing.state.name()) {
            Some(StateName::Succeeded) => Ok(()),
            Some(StateName::Failed | StateName::Cancelled) => {
                Err(self.heard.went_wrong("a job did not succeed").into())
            }
            _ => bail!("the job {id} was not over after {max:?}"),
        }
    }
}

fn added(enqueued: Enqueued) -> anyhow::Result<JobId> {
    match enqueued {
        Enqueued::Added(id) | Enqueued::Duplicate(id) => Ok(id),
        Enqueued::Discarded { .. } => {
            let text =
                "a job was not taken, since its key has no free slot and its task says `on-conflict = \"discard\"`";
            Err(Ending::new(Exit::NotDone, text).into())
        }
    }
}
