//! `wharf bench isolation`: small jobs at a steady rate, before and while other attempts compute without end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;

use super::ground::Where;
use super::load::Ready;
use super::own::{Own, Size};
use super::report::{Report, Spread, Unit};
use super::target::SINGLE_PATIENCE;
use crate::config::Settings;

/// The timeout of `bench/loop`.
const LOOP_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(1);

#[derive(Debug, Args)]
pub(crate) struct Isolation {
    #[command(flatten)]
    place: Where,
    /// Small jobs in a second, whether or not those before are over
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Attempts that compute without end, one after the other; each is stopped after a second, its timeout. The small
    /// jobs run as long before
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    loops: u32,
    /// Of these so many at once
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    at_once: u32,
}

impl Isolation {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<Report> {
        let ground = self.place.ground()?;
        let small = Ready::carried("noop");
        small.put(&ground)?;
        let own = std::sync::Arc::new(Own::start(&ground, settings, Size::of(settings)).await?);
        let mut report = Report::new("isolation");
        ground.tell(&mut report);
        small.tell(&mut report);
        report.with("guest-threads", settings.guest_threads);
        report.with("small-jobs-a-second", self.rate);
        report.with("loops", self.loops);
        report.with("loops-at-once", self.at_once);
        report.with("timeout-of-a-loop", "1s");

        let rounds = self.loops.div_ceil(self.at_once);
        // A tenth of it warms up.
        at_rate(&own, &small, self.rate, LOOP_TIMEOUT * rounds / 10, || true).await?;
        let before = at_rate(&own, &small, self.rate, LOOP_TIMEOUT * rounds, || true).await?;

        let looping = tokio::spawn(loops(std::sync::Arc::clone(&own), self.loops, self.at_once));
        let during = at_rate(&own, &small, self.rate, LOOP_TIMEOUT * (rounds + 60), || !looping.is_finished()).await?;
        looping.await.context("what enqueues the loops has panicked")??;
        let over: Vec<Duration> =
            own.heard.timed_out().into_iter().map(|wall| wall.saturating_sub(LOOP_TIMEOUT)).collect();
        if over.len() != self.loops as usize {
            bail!("{} of {} loops were ended by their timeout", over.len(), self.loops);
        }
        let (p99_before, p99_during) = (before.at(0.99), during.at(0.99));
        report.length("small-jobs-p99-before", p99_before);
        report.length("small-jobs-p99-beside-a-loop", p99_during);
        let ratio = p99_during.as_secs_f64() / p99_before.as_secs_f64().max(1e-9);
        report.figure("p99-beside-a-loop-to-before", ratio, Unit::Ratio);
        report.length("ended-past-its-timeout-at-most", over.iter().max().copied().unwrap_or_default());
        report.spread("small-job-before", before);
        report.spread("small-job-beside-a-loop", during);
        own.host.stop_now().await;
        Ok(report)
    }
}

/// Sends small jobs at a steady rate, each from the moment at which it was due until its result is there.
async fn at_rate(
    own: &std::sync::Arc<Own>,
    small: &Ready,
    rate: u32,
    length: Duration,
    go_on: impl Fn() -> bool,
) -> anyhow::Result<Spread> {
    let (began, each) = (Instant::now(), Duration::from_secs(1) / rate);
    let mut ticks = tokio::time::interval(each);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut under_way = Vec::new();
    while began.elapsed() < length && go_on() {
        let due = ticks.tick().await.into_std();
        let (own, request) = (std::sync::Arc::clone(own), small.request(None));
        under_way.push(tokio::spawn(async move {
            own.single(request, SINGLE_PATIENCE).await?;
            anyhow::Ok(due.elapsed())
        }));
    }
    let mut spread = Spread::new()?;
    for took in join_all(under_way).await {
        spread.add(took.context("a small job's caller has panicked")??);
    }
    Ok(spread)
}

async fn loops(own: std::sync::Arc<Own>, count: u32, at_once: u32) -> anyhow::Result<()> {
    let endless = Ready::carried("loop");
    let mut begun = 0;
    while begun < count {
        let some = at_once.min(count - begun);
        own.enqueue((0..some).map(|_| endless.request(None)).collect()).await?;
        begun += some;
        let asked = Instant::now();
        while own.heard.timed_out().len() < begun as usize {
            if asked.elapsed() > SINGLE_PATIENCE {
                bail!("an endless loop was not stopped within {SINGLE_PATIENCE:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}
