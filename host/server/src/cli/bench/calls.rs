//! Calls of an engine, without a host around it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use wharf_core::job::Stream;
use wharf_core::outcome::Outcome;
use wharf_core::rollcall::Reply;
use wharf_engine::{AttemptHandle, AttemptLimits, Call, CallInput, Engine, GuestJob, HostCalls, Plugin, Task};

use super::super::cli_error::{Ending, Exit};
use super::report::Spread;

/// Whom a call without a host has to talk to.
struct Nobody;

impl HostCalls for Nobody {
    fn emit(&self, _: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        std::future::ready(Ok(())).boxed()
    }
    fn log(&self, _: Stream, _: String) {}
    fn log_dropped(&self, _: u64) {}
    fn progress(&self, _: f32, _: String) {}
    fn enqueue(&self, _: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        std::future::ready(Err("there is no queue here".to_owned())).boxed()
    }
    fn broadcast(&self, _: String, _: Vec<u8>, _: Duration, _: Duration) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        std::future::ready(Err("there are no other plugins here".to_owned())).boxed()
    }
}

/// What is called again and again.
#[derive(Clone)]
pub(super) struct Called {
    pub(super) engine: Arc<Engine>,
    pub(super) plugin: Arc<Plugin>,
    pub(super) asked: CallInput,
    pub(super) limits: AttemptLimits,
}

impl Called {
    pub(super) fn job(engine: &Arc<Engine>, plugin: &Arc<Plugin>, task: &Task, payload: &[u8]) -> Called {
        let asked = CallInput::Job {
            id: "0000000000001".to_owned(),
            task: task.name.task().to_owned(),
            key: None,
            payload: payload.into(),
            attempt: 1,
        };
        let (engine, plugin) = (Arc::clone(engine), Arc::clone(plugin));
        Called { engine, plugin, asked, limits: AttemptLimits::of(task) }
    }

    /// One call in a fresh sandbox.
    pub(super) async fn once(&self) -> anyhow::Result<()> {
        let call = Call { input: self.asked.clone(), limits: self.limits.clone() };
        let ended = self.engine.call(Arc::clone(&self.plugin), call, Arc::new(Nobody), AttemptHandle::new()).await;
        match ended.outcome {
            Outcome::Returned(_) => Ok(()),
            other => Err(Ending::new(Exit::NotDone, format!("a call did not return: {}", other.report())).into()),
        }
    }

    /// So many calls, of which so many are under way at once: how long all took, and each.
    pub(super) async fn many(&self, calls: u32, at_once: u32) -> anyhow::Result<(Duration, Spread)> {
        let each = calls.div_ceil(at_once);
        let began = Instant::now();
        let lanes = (0..at_once).map(|_| {
            let called = self.clone();
            tokio::spawn(async move {
                let mut spread = Spread::new()?;
                for _ in 0..each {
                    let began = Instant::now();
                    called.once().await?;
                    spread.add(began.elapsed());
                }
                anyhow::Ok(spread)
            })
        });
        let lanes = join_all(lanes).await;
        let took = began.elapsed();
        let mut all = Spread::new()?;
        for lane in lanes {
            all.merge(&lane.context("a caller has panicked")??)?;
        }
        Ok((took, all))
    }
}
