//! `wharf bench broadcast`: one call to many subscribers that wait, against native sleeps; and to many that do nothing,
//! against the engine called for each without a broadcast around it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use futures_util::future::{join_all, try_join_all};
use wharf_core::rollcall::{Answer, Mode};
use wharf_engine::{AttemptLimits, CallInput};
use wharf_runner::Broadcast as Message;

use super::super::cli_error::{Ending, Exit};
use super::calls::Called;
use super::cost::{Whose, anonymous_bytes};
use super::ground::{COMPONENT, Folder, Ground};
use super::own::{Own, Size};
use super::report::{Report, Unit, median};
use super::running::Running;
use super::wire::Place;
use crate::config::{Settings, duration};

const TOPIC: &str = "bench.run";
const PATIENCE: Duration = Duration::from_secs(60);
/// One after the other they take long: this many are measured, and the rest is taken to be like them.
const ONE_BY_ONE: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct Broadcast {
    #[command(flatten)]
    folder: Folder,
    /// Plugins that subscribe; a running host has its own
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    subscribers: u32,
    /// How long each of them waits, in a call of its host
    #[arg(long, value_name = "LENGTH", default_value = "100ms", value_parser = wait)]
    wait: Duration,
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000), help = "Rounds; the figures are of the one in the middle")]
    rounds: u32,
}

fn wait(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        long if long >= PATIENCE => Err(format!("`{text}` is too long; less than a minute is possible")),
        fine => Ok(fine),
    }
}

impl Broadcast {
    pub(super) async fn run(self, settings: &Settings, running: Option<Place>) -> anyhow::Result<Report> {
        let mut report = Report::new("broadcast");
        report.with("wait-ms", self.wait.as_millis() as u64);
        report.with("rounds", self.rounds);
        match running {
            Some(place) => self.on_a_running_host(settings, place, &mut report).await?,
            None => self.on_its_own_host(settings, &mut report).await?,
        }
        Ok(report)
    }

    async fn on_its_own_host(self, settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
        let ground: Ground = self.folder.ground()?;
        for n in 0..self.subscribers {
            ground.put(&format!("s{n:04}"), COMPONENT)?;
        }
        // No store is asked for anything.
        let size = Size { broadcast_calls: settings.broadcast_calls.max(self.subscribers), ..Size::of(settings) };
        let own = Own::start_on(&ground, settings, size, "memory:").await?;
        report.with("host", "its own, in this process; no store is used");
        report.with("subscribers", self.subscribers);
        report.with("called-at-once", size.broadcast_calls);
        report.with("guest-threads", settings.guest_threads);
        let waits = waiting(self.wait);
        let before = anonymous_bytes(Whose::This)?;
        let (mut broadcasts, mut natives, mut nothings, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let idle = called(&own, &[])?;
        let mut while_waiting = 0;
        for round in 0..=self.rounds {
            let native = native(self.subscribers, self.wait).await;
            let (took, memory) = tokio::try_join!(broadcast(&own, &waits, self.subscribers), async {
                // While they are all suspended, if the wait is long enough for that.
                tokio::time::sleep(self.wait.mul_f64(0.9)).await;
                anonymous_bytes(Whose::This)
            })?;
            let nothing = broadcast(&own, &[], self.subscribers).await?;
            let began = Instant::now();
            try_join_all(idle.iter().map(Called::once)).await?;
            let alone = began.elapsed();
            // The first one warms up.
            if round > 0 {
                broadcasts.push(millis(took));
                natives.push(millis(native));
                nothings.push(millis(nothing) / f64::from(self.subscribers));
                bare.push(millis(alone) / f64::from(self.subscribers));
                while_waiting = while_waiting.max(memory);
            }
        }
        let began = Instant::now();
        let some = called(&own, &waits)?;
        let some = &some[..ONE_BY_ONE.min(some.len())];
        for one in some {
            one.once().await?;
        }
        let one_by_one = millis(began.elapsed()) * f64::from(self.subscribers) / some.len() as f64;

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
        own.host.stop_now().await;
        Ok(())
    }

    async fn on_a_running_host(self, settings: &Settings, place: Place, report: &mut Report) -> anyhow::Result<()> {
        let host = Running::reach(place, "bench/noop").await?;
        report.with("host", settings.host.as_str());
        let waits = waiting(self.wait);
        let (mut broadcasts, mut natives) = (Vec::new(), Vec::new());
        let mut subscribers = 0;
        for _ in 0..self.rounds {
            let began = Instant::now();
            subscribers = host.broadcast(TOPIC, waits.clone().into()).await?;
            broadcasts.push(millis(began.elapsed()));
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

/// The payload that makes a subscriber wait.
fn waiting(length: Duration) -> Vec<u8> {
    length.as_millis().to_string().into_bytes()
}

async fn native(count: u32, length: Duration) -> Duration {
    let began = Instant::now();
    join_all((0..count).map(|_| tokio::time::sleep(length))).await;
    began.elapsed()
}

async fn broadcast(own: &Own, payload: &[u8], subscribers: u32) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let asked = Message { topic: TOPIC.to_owned(), payload: payload.into(), timeout: PATIENCE, mode: Mode::All };
    let replies = own.host.broadcast(asked).map_err(|error| Ending::new(Exit::NotDone, error.to_string()))?;
    let replies = replies.all().await;
    let took = began.elapsed();
    let good = replies.iter().filter(|reply| matches!(reply.answer, Answer::Replied(_))).count();
    if good != subscribers as usize {
        let text = format!("{good} of {subscribers} subscribers replied to a broadcast");
        return Err(Ending::new(Exit::NotDone, text).into());
    }
    Ok(took)
}

/// The same calls, without a broadcast around them.
fn called(own: &Own, payload: &[u8]) -> anyhow::Result<Vec<Called>> {
    let catalog = own.host.catalog();
    let each = catalog.plugins().values().map(|loaded| {
        let receive = loaded.plugin.manifest.receive.as_ref().context("the plugin of the bench has no topic")?;
        let asked = CallInput::Message { id: "1".to_owned(), topic: TOPIC.to_owned(), payload: payload.into() };
        let (engine, plugin) = (Arc::clone(&own.engine), Arc::clone(&loaded.plugin));
        Ok(Called { engine, plugin, asked, limits: AttemptLimits::of(&receive.task) })
    });
    each.collect()
}

fn millis(length: Duration) -> f64 {
    length.as_secs_f64() * 1e3
}
