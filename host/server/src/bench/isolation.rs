//! `wharf bench isolation`: small jobs at a steady rate, before and while other attempts never stop computing, and
//! while many others sleep.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;
use wharf_core::bounds;

use super::embedded_host::{Capacity, EmbeddedHost};
use super::load::{Load, LoadArgs};
use super::report::{BenchReport, Latencies, Unit};
use super::target::JOB_TIMEOUT;
use super::workspace::WorkspaceArgs;
use crate::config::Settings;

/// The timeout of `bench/loop`.
const LOOP_TIMEOUT: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

#[derive(Debug, Args)]
pub(crate) struct IsolationBench {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    /// Small jobs per second, whether or not earlier ones have ended
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Number of attempts that never stop computing; each is stopped by its timeout after a second. The small jobs run for
    /// the same time before them
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    loops: u32,
    /// Number of these attempts that run at once
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    at_once: u32,
    /// Number of attempts that sleep while the small jobs run a third time; no more than fit beside one of these
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=i64::from(bounds::ATTEMPTS_MAX)))]
    sleepers: u32,
    /// Plugin whose attempts sleep [default: a built-in one]
    #[arg(long, value_name = "FILE", requires_all = ["sleeper_task", "sleeper_input"])]
    sleeper: Option<PathBuf>,
    /// Task of --sleeper that sleeps longer than the small jobs run
    #[arg(long, value_name = "TASK", requires = "sleeper")]
    sleeper_task: Option<String>,
    /// Payload of these: JSON, or @FILE for the bytes of a file. Each attempt has a key of its own
    #[arg(long, value_name = "JSON|@FILE", requires = "sleeper")]
    sleeper_input: Option<String>,
}

/// The payload of `bench/wait`, in milliseconds.
const LONG: &str = "3600000";

impl IsolationBench {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<BenchReport> {
        let workspace = self.workspace.create()?;
        let small = Load::built_in("noop");
        small.put(&workspace)?;
        let sleeper = self.sleeper()?;
        sleeper.put(&workspace)?;
        let embedded = Arc::new(EmbeddedHost::start(&workspace, settings, Capacity::of(settings)).await?);
        let mut report = BenchReport::new("isolation");
        workspace.describe(&mut report);
        small.describe(&mut report);
        report.with("guest-threads", settings.guest_threads);
        report.with("small-jobs-a-second", self.rate);
        report.with("loops", self.loops);
        report.with("loops-at-once", self.at_once);
        report.with("timeout-of-a-loop", "1s");
        report.with("sleeper", sleeper.task.as_str());

        let rounds = self.loops.div_ceil(self.at_once);
        // A tenth of the time warms up.
        at_rate(&embedded, &small, self.rate, LOOP_TIMEOUT * rounds / 10, || true).await?;
        let before = at_rate(&embedded, &small, self.rate, LOOP_TIMEOUT * rounds, || true).await?;

        let looping = tokio::spawn(loops(Arc::clone(&embedded), self.loops, self.at_once));
        let during =
            at_rate(&embedded, &small, self.rate, LOOP_TIMEOUT * (rounds + 60), || !looping.is_finished()).await?;
        looping.await.context("the task that enqueues the loops panicked")??;
        let excess: Vec<Duration> =
            embedded.notices.timed_out().into_iter().map(|wall| wall.saturating_sub(LOOP_TIMEOUT)).collect();
        if excess.len() != self.loops as usize {
            bail!("{} of {} loops were stopped by their timeout", excess.len(), self.loops);
        }
        let (p99_before, p99_during) = (before.at(0.99), during.at(0.99));
        let sleepers = sleepers(&embedded, &sleeper, self.sleepers).await?;
        let beside_sleepers = at_rate(&embedded, &small, self.rate, LOOP_TIMEOUT * rounds, || true).await?;
        if embedded.host.health().running < sleepers {
            return Err(embedded.notices.failure("attempts ended that should have slept").into());
        }
        report.with("sleepers", sleepers);
        let p99_beside_sleepers = beside_sleepers.at(0.99);

        report.duration("small-jobs-p99-before", p99_before);
        report.duration("small-jobs-p99-beside-a-loop", p99_during);
        let ratio = p99_during.as_secs_f64() / p99_before.as_secs_f64().max(1e-9);
        report.figure("p99-beside-a-loop-to-before", ratio, Unit::Ratio);
        report.duration("small-jobs-p99-beside-sleepers", p99_beside_sleepers);
        let ratio = p99_beside_sleepers.as_secs_f64() / p99_before.as_secs_f64().max(1e-9);
        report.figure("p99-beside-sleepers-to-before", ratio, Unit::Ratio);
        report.duration("ended-past-its-timeout-at-most", excess.iter().max().copied().unwrap_or_default());
        report.latencies("small-job-before", before);
        report.latencies("small-job-beside-a-loop", during);
        report.latencies("small-job-beside-sleepers", beside_sleepers);
        embedded.host.stop_now().await;
        Ok(report)
    }

    /// Returns what sleeps.
    fn sleeper(&self) -> anyhow::Result<Load> {
        if self.sleeper.is_none() {
            return Ok(Load { payload: LONG.into(), ..Load::built_in("wait") });
        }
        let (plugin, task, input) = (self.sleeper.clone(), self.sleeper_task.clone(), self.sleeper_input.clone());
        LoadArgs { plugin, task, input, payload_bytes: None }.read()
    }
}

/// Runs small jobs at a steady rate. A latency is the time from the moment at which the job was due until its result is
/// there.
async fn at_rate(
    embedded: &Arc<EmbeddedHost>,
    small: &Load,
    rate: u32,
    length: Duration,
    go_on: impl Fn() -> bool,
) -> anyhow::Result<Latencies> {
    let (started, each) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut ticks = tokio::time::interval(each);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut jobs = Vec::new();
    while started.elapsed() < length && go_on() {
        let due = ticks.tick().await.into_std();
        let (embedded, request) = (Arc::clone(embedded), small.request(None));
        jobs.push(tokio::spawn(async move {
            embedded.single(request, JOB_TIMEOUT).await?;
            anyhow::Ok(due.elapsed())
        }));
    }
    let mut latencies = Latencies::new()?;
    for took in join_all(jobs).await {
        latencies.add(took.context("the caller of a small job panicked")??);
    }
    Ok(latencies)
}

/// Starts up to `count` attempts that sleep, and returns how many once all of them run.
async fn sleepers(embedded: &EmbeddedHost, sleeper: &Load, count: u32) -> anyhow::Result<u32> {
    let count = count.min(embedded.host.health().capacity.saturating_sub(1)).max(1);
    embedded.enqueue((0..count).map(|n| sleeper.request(Some(format!("sleeper-{n}")))).collect()).await?;
    let enqueued = Instant::now();
    while embedded.host.health().running < count {
        if enqueued.elapsed() > JOB_TIMEOUT {
            bail!("only {} of {count} sleepers run after {JOB_TIMEOUT:?}", embedded.host.health().running);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(count)
}

async fn loops(embedded: Arc<EmbeddedHost>, count: u32, at_once: u32) -> anyhow::Result<()> {
    let endless = Load::built_in("loop");
    let mut started = 0;
    while started < count {
        let some = at_once.min(count - started);
        embedded.enqueue((0..some).map(|_| endless.request(None)).collect()).await?;
        started += some;
        let enqueued = Instant::now();
        while embedded.notices.timed_out().len() < started as usize {
            if enqueued.elapsed() > JOB_TIMEOUT {
                bail!("an endless loop was not stopped within {JOB_TIMEOUT:?}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
    Ok(())
}
