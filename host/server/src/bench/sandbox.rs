//! `wharf bench sandbox`: calls in a fresh sandbox each, without a queue, or many attempts that are all suspended.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use wharf_core::bounds;

use super::calls::CallTarget;
use super::embedded_host::{Capacity, EmbeddedHost};
use super::load::{Load, LoadArgs};
use super::process_stats::{Process, UsageTimer, anonymous_bytes, cpu_time, resident_bytes};
use super::report::{BenchReport, Unit};
use super::workspace::{DirArgs, Workspace};
use crate::cli_error::CliError;
use crate::config::Settings;

/// The number of jobs in one request.
const BATCH: usize = 1000;
/// The time over which the CPU time is compared with `QUIET_CPU` to find out that all attempts are suspended.
const QUIET: Duration = Duration::from_millis(200);
/// The CPU time below which the process counts as quiet.
const QUIET_CPU: Duration = Duration::from_millis(20);
const SUSPEND_TIMEOUT: Duration = Duration::from_secs(120);
/// The payload of suspended attempts, in milliseconds: longer than any benchmark, and less than the hour that `bench/wait` may
/// take.
const LONG: &str = "3000000";

#[derive(Debug, Args)]
pub(crate) struct SandboxBench {
    #[command(flatten)]
    folder: DirArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Number of calls at each concurrency: one at a time, two per core, 64
    #[arg(long, value_name = "COUNT", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    calls: u32,
    /// Measure instead the memory of this many attempts of a whole host, all suspended in a host call, and what happens to
    /// one more
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(bounds::ATTEMPTS_MAX)), conflicts_with_all = ["calls", "plugin", "task"])]
    suspended: Option<u32>,
}

impl SandboxBench {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<BenchReport> {
        let workspace = self.folder.create()?;
        match self.suspended {
            Some(count) => suspended(&workspace, settings, count).await,
            None => fresh(&workspace, settings, &self.load.read()?, self.calls).await,
        }
    }
}

async fn fresh(workspace: &Workspace, settings: &Settings, load: &Load, calls: u32) -> anyhow::Result<BenchReport> {
    load.put(workspace)?;
    let embedded = EmbeddedHost::start_on(workspace, settings, Capacity::of(settings), "memory:").await?;
    let catalog = embedded.host.catalog();
    let name = load.task.parse().map_err(|error| CliError::usage(format!("--task: {error}")))?;
    let (plugin, task) =
        catalog.task(&name).ok_or_else(|| CliError::usage(format!("unknown task `{}` of the plugin", load.task)))?;
    let call_target = CallTarget::job(&embedded.engine, plugin, task, &load.payload);

    let mut report = BenchReport::new("sandbox");
    load.describe(&mut report);
    report.with("calls", calls);
    report.with("guest-threads", settings.guest_threads);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = u32::try_from(cores).unwrap_or(1);
    let mut concurrencies = vec![1, 2 * cores, 64];
    concurrencies.dedup();
    call_target.many(calls.div_ceil(10), 2 * cores).await?;
    for at_once in concurrencies.into_iter().filter(|at_once| *at_once <= embedded.engine.capacity()) {
        let calls = if at_once == 1 { calls.div_ceil(4) } else { calls };
        let timer = UsageTimer::now(Process::This)?;
        let (took, latencies) = call_target.many(calls, at_once).await?;
        let usage = timer.usage()?;
        let count = latencies.count();
        report.figure(format!("calls-{at_once}-at-once"), count as f64 / took.as_secs_f64(), Unit::PerSecond);
        report.duration(format!("processor-per-call-{at_once}-at-once"), usage.cpu.div_f64(count as f64));
        report.latencies(format!("call-{at_once}-at-once"), latencies);
    }
    embedded.host.stop_now().await;
    Ok(report)
}

async fn suspended(workspace: &Workspace, settings: &Settings, count: u32) -> anyhow::Result<BenchReport> {
    let load = Load { payload: LONG.into(), ..Load::built_in("wait") };
    load.put(workspace)?;
    let embedded =
        EmbeddedHost::start(workspace, settings, Capacity { attempts: count, ..Capacity::of(settings) }).await?;
    let mut report = BenchReport::new("sandbox");
    workspace.describe(&mut report);
    load.describe(&mut report);
    report.with("suspended", count);
    if embedded.engine.capacity() < count {
        bail!("this machine can run {} sandboxes at once; lower --suspended to that", embedded.engine.capacity());
    }
    let (resident, anonymous) = (resident_bytes(Process::This)?, anonymous_bytes(Process::This)?);
    let started = Instant::now();
    for first in (0..count as usize).step_by(BATCH) {
        let some = BATCH.min(count as usize - first);
        embedded.enqueue((0..some).map(|_| load.request(None)).collect()).await?;
    }
    while embedded.host.health().running < count || !is_quiet().await? {
        if started.elapsed() > SUSPEND_TIMEOUT {
            bail!("only {} attempts run after {SUSPEND_TIMEOUT:?}", embedded.host.health().running);
        }
    }
    report.figure("attempts-suspended", f64::from(embedded.host.health().running), Unit::Count);
    let (resident_then, anonymous_then) = (resident_bytes(Process::This)?, anonymous_bytes(Process::This)?);
    report.figure("resident-memory", resident_then as f64, Unit::Bytes);
    report.figure("of-it-anonymous", anonymous_then as f64, Unit::Bytes);
    report.figure("resident-memory-before", resident as f64, Unit::Bytes);
    let each = anonymous_then.saturating_sub(anonymous) / u64::from(count);
    report.figure("anonymous-memory-per-attempt", each as f64, Unit::Bytes);

    let before = cpu_time(Process::This)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = cpu_time(Process::This)?.saturating_sub(before);
    report.figure("busy-cores-while-suspended", busy.as_secs_f64(), Unit::Count);

    // One more job waits for its turn, and nothing fails.
    let more = embedded.enqueue(vec![load.request(None)]).await?;
    let id = *more.first().context("the host returned no job")?;
    tokio::time::sleep(QUIET).await;
    let view = embedded.host.job(id).await?.context("the store lost a job")?;
    report.with("one-more", view.seen.job.status.state.name().as_str());
    if embedded.host.health().running != count {
        return Err(embedded.notices.failure("attempts ended that should have waited").into());
    }
    embedded.host.stop_now().await;
    Ok(report)
}

/// Returns true if the process used almost no CPU time during `QUIET`.
async fn is_quiet() -> anyhow::Result<bool> {
    let before = cpu_time(Process::This)?;
    tokio::time::sleep(QUIET).await;
    Ok(cpu_time(Process::This)?.saturating_sub(before) < QUIET_CPU)
}
