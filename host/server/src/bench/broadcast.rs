//! `wharf bench broadcast`: compares a broadcast to many subscribers that wait with native sleeps, and one to many idle
//! subscribers with direct calls of the engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use futures_util::future::{join_all, try_join_all};
use wharf_core::rollcall::{Answer, Mode};
use wharf_engine::{AttemptLimits, CallInput};
use wharf_runner::Broadcast;

use super::calls::CallTarget;
use super::embedded_host::{Capacity, EmbeddedHost};
use super::process_stats::{Process, anonymous_bytes};
use super::raw_http::HostAddress;
use super::remote_host::RemoteHost;
use super::report::{BenchReport, Unit, median};
use super::workspace::{COMPONENT, DirArgs, Workspace};
use crate::cli_error::{CliError, ExitStatus};
use crate::config::{Settings, duration};

const TOPIC: &str = "bench.run";
const BROADCAST_TIMEOUT: Duration = Duration::from_secs(60);
/// The number of calls that are measured one after the other. The time of all of them is extrapolated, since it is long.
const ONE_BY_ONE: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct BroadcastBench {
    #[command(flatten)]
    folder: DirArgs,
    /// Number of subscribing plugins; a running host uses those that it has
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    subscribers: u32,
    /// Time that each subscriber waits in a host call
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = wait)]
    wait: Duration,
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000), help = "Number of rounds; the figures are medians")]
    rounds: u32,
}

fn wait(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        long if long >= BROADCAST_TIMEOUT => Err(format!("`{text}` is too long; it must be less than 1m")),
        wait => Ok(wait),
    }
}

impl BroadcastBench {
    pub(super) async fn run(self, settings: &Settings, remote: Option<HostAddress>) -> anyhow::Result<BenchReport> {
        let mut report = BenchReport::new("broadcast");
        report.with("wait-ms", self.wait.as_millis() as u64);
        report.with("rounds", self.rounds);
        match remote {
            Some(address) => self.run_remote(settings, address, &mut report).await?,
            None => self.run_embedded(settings, &mut report).await?,
        }
        Ok(report)
    }

    async fn run_embedded(self, settings: &Settings, report: &mut BenchReport) -> anyhow::Result<()> {
        let workspace: Workspace = self.folder.create()?;
        for n in 0..self.subscribers {
            workspace.put(&format!("s{n:04}"), COMPONENT)?;
        }
        // Live broadcasts do not use the store.
        let capacity =
            Capacity { broadcast_calls: settings.broadcast_calls.max(self.subscribers), ..Capacity::of(settings) };
        let embedded = EmbeddedHost::start_on(&workspace, settings, capacity, "memory:").await?;
        report.with("host", "its own, in this process; no store is used");
        report.with("subscribers", self.subscribers);
        report.with("called-at-once", capacity.broadcast_calls);
        report.with("guest-threads", settings.guest_threads);
        let waits = waiting(self.wait);
        let before = anonymous_bytes(Process::This)?;
        let (mut broadcasts, mut natives, mut nothings, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let idle = called(&embedded, &[])?;
        let mut while_waiting = 0;
        for round in 0..=self.rounds {
            let native = native(self.subscribers, self.wait).await;
            let (took, memory) = tokio::try_join!(broadcast(&embedded, &waits, self.subscribers), async {
                // Measured while all subscribers are suspended, if the wait is long enough.
                tokio::time::sleep(self.wait.mul_f64(0.9)).await;
                anonymous_bytes(Process::This)
            })?;
            let nothing = broadcast(&embedded, &[], self.subscribers).await?;
            let started = Instant::now();
            try_join_all(idle.iter().map(CallTarget::once)).await?;
            let alone = started.elapsed();
            // The first round warms up.
            if round > 0 {
                broadcasts.push(millis(took));
                natives.push(millis(native));
                nothings.push(millis(nothing) / f64::from(self.subscribers));
                bare.push(millis(alone) / f64::from(self.subscribers));
                while_waiting = while_waiting.max(memory);
            }
        }
        let started = Instant::now();
        let some = called(&embedded, &waits)?;
        let some = &some[..ONE_BY_ONE.min(some.len())];
        for one in some {
            one.once().await?;
        }
        let one_by_one = millis(started.elapsed()) * f64::from(self.subscribers) / some.len() as f64;

        let worst = broadcasts.iter().copied().fold(0.0, f64::max);
        let (took, native, nothing, alone) = (median(broadcasts), median(natives), median(nothings), median(bare));
        report.figure("broadcast", took, Unit::Millis);
        report.figure("broadcast-at-most", worst, Unit::Millis);
        report.figure("native-sleeps", native, Unit::Millis);
        report.figure("broadcast-to-native-sleeps", took / native, Unit::Ratio);
        report.figure("one-after-the-other", one_by_one, Unit::Millis);
        report.figure("one-after-the-other-to-broadcast", one_by_one / took, Unit::Ratio);
        report.figure("idle-subscriber-in-a-broadcast", nothing, Unit::Millis);
        report.figure("idle-subscriber-called-by-the-engine", alone, Unit::Millis);
        report.figure("idle-subscriber-in-a-broadcast-to-called", nothing / alone, Unit::Ratio);
        report.figure("anonymous-memory-while-they-wait", while_waiting as f64, Unit::Bytes);
        report.figure("anonymous-memory-before", before as f64, Unit::Bytes);
        embedded.host.stop_now().await;
        Ok(())
    }

    async fn run_remote(
        self,
        settings: &Settings,
        address: HostAddress,
        report: &mut BenchReport,
    ) -> anyhow::Result<()> {
        let host = RemoteHost::reach(address, "bench/noop").await?;
        report.with("host", settings.host.as_str());
        let waits = waiting(self.wait);
        let (mut broadcasts, mut natives) = (Vec::new(), Vec::new());
        let mut subscribers = 0;
        for _ in 0..self.rounds {
            let started = Instant::now();
            subscribers = host.broadcast(TOPIC, waits.clone().into()).await?;
            broadcasts.push(millis(started.elapsed()));
            natives.push(millis(native(u32::try_from(subscribers)?, self.wait).await));
        }
        report.with("subscribers", subscribers);
        let (took, native) = (median(broadcasts), median(natives));
        report.figure("broadcast", took, Unit::Millis);
        report.figure("native-sleeps-here", native, Unit::Millis);
        report.figure("broadcast-to-native-sleeps", took / native, Unit::Ratio);
        Ok(())
    }
}

/// Returns the payload that makes a subscriber wait.
fn waiting(length: Duration) -> Vec<u8> {
    length.as_millis().to_string().into_bytes()
}

async fn native(count: u32, length: Duration) -> Duration {
    let started = Instant::now();
    join_all((0..count).map(|_| tokio::time::sleep(length))).await;
    started.elapsed()
}

async fn broadcast(embedded: &EmbeddedHost, payload: &[u8], subscribers: u32) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let request =
        Broadcast { topic: TOPIC.to_owned(), payload: payload.into(), timeout: BROADCAST_TIMEOUT, mode: Mode::All };
    let replies =
        embedded.host.broadcast(request).map_err(|error| CliError::new(ExitStatus::NotDone, error.to_string()))?;
    let replies = replies.all().await;
    let took = started.elapsed();
    let good = replies.iter().filter(|reply| matches!(reply.answer, Answer::Replied(_))).count();
    if good != subscribers as usize {
        let text = format!("{good} of {subscribers} subscribers replied to a broadcast");
        return Err(CliError::new(ExitStatus::NotDone, text).into());
    }
    Ok(took)
}

/// Returns direct calls of every subscriber, without a broadcast.
fn called(embedded: &EmbeddedHost, payload: &[u8]) -> anyhow::Result<Vec<CallTarget>> {
    let catalog = embedded.host.catalog();
    let each = catalog.plugins().values().map(|loaded| {
        let receive =
            loaded.plugin.manifest.receive.as_ref().context("the plugin of the benchmarks subscribes to nothing")?;
        let asked = CallInput::Message { id: "1".to_owned(), topic: TOPIC.to_owned(), payload: payload.into() };
        let (engine, plugin) = (Arc::clone(&embedded.engine), Arc::clone(&loaded.plugin));
        Ok(CallTarget { engine, plugin, asked, limits: AttemptLimits::of(&receive.task) })
    });
    each.collect()
}

fn millis(length: Duration) -> f64 {
    length.as_secs_f64() * 1e3
}
