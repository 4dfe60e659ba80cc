//! Calls of an engine without a host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use wharf_core::job::Stream;
use wharf_core::outcome::Outcome;
use wharf_core::rollcall::Reply;
use wharf_engine::{AttemptHandle, AttemptLimits, Call, CallInput, Engine, GuestJob, HostCalls, Plugin, Task};

use super::report::Latencies;
use crate::cli_error::{CliError, ExitStatus};

/// The host functions of a call without a host, which do nothing or fail.
struct NoHostCalls;

impl HostCalls for NoHostCalls {
    fn emit(&self, _: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        std::future::ready(Ok(())).boxed()
    }
    fn log(&self, _: Stream, _: String) {}
    fn log_dropped(&self, _: u64) {}
    fn progress(&self, _: f32, _: String) {}
    fn enqueue(&self, _: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        std::future::ready(Err("this call runs without a queue".to_owned())).boxed()
    }
    fn broadcast(&self, _: String, _: Vec<u8>, _: Duration, _: Duration) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        std::future::ready(Err("this call runs without other plugins".to_owned())).boxed()
    }
}

/// A call that is repeated.
#[derive(Clone)]
pub(super) struct CallTarget {
    pub(super) engine: Arc<Engine>,
    pub(super) plugin: Arc<Plugin>,
    pub(super) asked: CallInput,
    pub(super) limits: AttemptLimits,
}

impl CallTarget {
    /// Creates a call that runs a job of `task`.
    pub(super) fn job(engine: &Arc<Engine>, plugin: &Arc<Plugin>, task: &Task, payload: &[u8]) -> CallTarget {
        let asked = CallInput::Job {
            id: "0000000000001".to_owned(),
            task: task.name.task().to_owned(),
            key: None,
            payload: payload.into(),
            attempt: 1,
            tick: None,
        };
        let (engine, plugin) = (Arc::clone(engine), Arc::clone(plugin));
        CallTarget { engine, plugin, asked, limits: AttemptLimits::of(task) }
    }

    /// Runs one call in a fresh sandbox.
    pub(super) async fn once(&self) -> anyhow::Result<()> {
        let call = Call { input: self.asked.clone(), limits: self.limits.clone() };
        let ended = self.engine.call(Arc::clone(&self.plugin), call, Arc::new(NoHostCalls), AttemptHandle::new()).await;
        match ended.outcome {
            Outcome::Returned(_) => Ok(()),
            other => {
                Err(CliError::new(ExitStatus::NotDone, format!("a call did not return: {}", other.report())).into())
            }
        }
    }

    /// Runs `calls` calls, of which `at_once` run at the same time; returns the total time, and the latency of each.
    pub(super) async fn many(&self, calls: u32, at_once: u32) -> anyhow::Result<(Duration, Latencies)> {
        let each = calls.div_ceil(at_once);
        let started = Instant::now();
        let workers = (0..at_once).map(|_| {
            let call = self.clone();
            tokio::spawn(async move {
                let mut latencies = Latencies::new()?;
                for _ in 0..each {
                    let started = Instant::now();
                    call.once().await?;
                    latencies.add(started.elapsed());
                }
                anyhow::Ok(latencies)
            })
        });
        let workers = join_all(workers).await;
        let took = started.elapsed();
        let mut all = Latencies::new()?;
        for worker in workers {
            all.merge(&worker.context("a caller panicked")??)?;
        }
        Ok((took, all))
    }
}
