//! `wharf bench sandbox`: calls in a fresh sandbox each, without a queue; or as many attempts as can be had, all suspended.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use wharf_core::bounds;

use super::super::cli_error::Ending;
use super::calls::Called;
use super::cost::{Since, Whose, anonymous_bytes, processor, resident_bytes};
use super::ground::{Folder, Ground};
use super::load::{Load, Ready};
use super::own::{Own, Size};
use super::report::{Report, Unit};
use crate::config::Settings;

/// In one request.
const BATCH: usize = 1000;
/// All are suspended when the process is this quiet for so long.
const QUIET: Duration = Duration::from_millis(200);
const QUIET_PROCESSOR: Duration = Duration::from_millis(20);
const SUSPEND_PATIENCE: Duration = Duration::from_secs(120);
/// As long as no bench lasts, in milliseconds; `bench/wait` may take an hour.
const LONG: &str = "3000000";

#[derive(Debug, Args)]
pub(crate) struct Sandbox {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    load: Load,
    /// Calls that are measured at each width: one at a time, two for each core, 64
    #[arg(long, value_name = "COUNT", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    calls: u32,
    /// Instead: this many attempts of a whole host suspended in a call of it at once, their memory, and what happens to
    /// one more
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(bounds::ATTEMPTS_MAX)), conflicts_with_all = ["calls", "plugin", "task"])]
    suspended: Option<u32>,
}

impl Sandbox {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<Report> {
        let ground = self.folder.ground()?;
        match self.suspended {
            Some(count) => suspended(&ground, settings, count).await,
            None => fresh(&ground, settings, &self.load.ready()?, self.calls).await,
        }
    }
}

async fn fresh(ground: &Ground, settings: &Settings, load: &Ready, calls: u32) -> anyhow::Result<Report> {
    load.put(ground)?;
    let own = Own::start_on(ground, settings, Size::of(settings), "memory:").await?;
    let catalog = own.host.catalog();
    let name = load.task.parse().map_err(|error| Ending::usage(format!("--task: {error}")))?;
    let (plugin, task) =
        catalog.task(&name).ok_or_else(|| Ending::usage(format!("the plugin has no task `{}`", load.task)))?;
    let called = Called::job(&own.engine, plugin, task, &load.payload);

    let mut report = Report::new("sandbox");
    load.tell(&mut report);
    report.with("calls", calls);
    report.with("guest-threads", settings.guest_threads);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = u32::try_from(cores).unwrap_or(1);
    let mut widths = vec![1, 2 * cores, 64];
    widths.dedup();
    called.many(calls.div_ceil(10), 2 * cores).await?;
    for at_once in widths.into_iter().filter(|width| *width <= own.engine.capacity()) {
        let calls = if at_once == 1 { calls.div_ceil(4) } else { calls };
        let since = Since::now(Whose::This)?;
        let (took, spread) = called.many(calls, at_once).await?;
        let cost = since.cost()?;
        let count = spread.count();
        report.figure(format!("calls-{at_once}-at-once"), count as f64 / took.as_secs_f64(), Unit::PerSecond);
        report.length(format!("processor-per-call-{at_once}-at-once"), cost.processor.div_f64(count as f64));
        report.spread(format!("call-{at_once}-at-once"), spread);
    }
    own.host.stop_now().await;
    Ok(report)
}

async fn suspended(ground: &Ground, settings: &Settings, count: u32) -> anyhow::Result<Report> {
    let load = Ready { payload: LONG.into(), ..Ready::carried("wait") };
    load.put(ground)?;
    let own = Own::start(ground, settings, Size { attempts: count, ..Size::of(settings) }).await?;
    let mut report = Report::new("sandbox");
    ground.tell(&mut report);
    load.tell(&mut report);
    report.with("suspended", count);
    if own.engine.capacity() < count {
        bail!("this machine gives room for {} sandboxes; ask for no more with --suspended", own.engine.capacity());
    }
    let (resident, anonymous) = (resident_bytes(Whose::This)?, anonymous_bytes(Whose::This)?);
    let began = Instant::now();
    for first in (0..count as usize).step_by(BATCH) {
        let some = BATCH.min(count as usize - first);
        own.enqueue((0..some).map(|_| load.request(None)).collect()).await?;
    }
    while own.host.health().running < count || !is_quiet().await? {
        if began.elapsed() > SUSPEND_PATIENCE {
            bail!("only {} attempts run after {SUSPEND_PATIENCE:?}", own.host.health().running);
        }
    }
    report.figure("attempts-suspended", f64::from(own.host.health().running), Unit::Count);
    let (resident_then, anonymous_then) = (resident_bytes(Whose::This)?, anonymous_bytes(Whose::This)?);
    report.figure("resident-memory", resident_then as f64, Unit::Bytes);
    report.figure("of-it-anonymous", anonymous_then as f64, Unit::Bytes);
    report.figure("resident-memory-before", resident as f64, Unit::Bytes);
    let each = anonymous_then.saturating_sub(anonymous) / u64::from(count);
    report.figure("anonymous-memory-per-attempt", each as f64, Unit::Bytes);

    let before = processor(Whose::This)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let busy = processor(Whose::This)?.saturating_sub(before);
    report.figure("busy-cores-while-suspended", busy.as_secs_f64(), Unit::Count);

    // One more waits its turn, and nothing fails.
    let more = own.enqueue(vec![load.request(None)]).await?;
    let id = *more.first().context("the host did not say what became of the job")?;
    tokio::time::sleep(QUIET).await;
    let view = own.host.job(id).await?.context("the store forgot a job")?;
    report.with("one-more", view.seen.job.standing.state.name().as_str());
    if own.host.health().running != count {
        return Err(own.heard.went_wrong("attempts ended that should wait").into());
    }
    own.host.stop_now().await;
    Ok(report)
}

/// Nothing much happens any more.
async fn is_quiet() -> anyhow::Result<bool> {
    let before = processor(Whose::This)?;
    tokio::time::sleep(QUIET).await;
    Ok(processor(Whose::This)?.saturating_sub(before) < QUIET_PROCESSOR)
}
