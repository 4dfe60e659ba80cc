//! `wharf bench reload`: how long a host with many plugins takes to be ready, and what jobs notice of a plugin that is
//! replaced while they run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::body::Bytes;
use axum::http::Method;
use clap::Args;

use super::ground::{COMPONENT, Where};
use super::report::{Report, Spread, Unit, median};
use super::served::Served;
use super::wire::Place;
use crate::config::Settings;

/// Waits for the result.
const SMALL_JOB: &str = "/v1/jobs?task=bench%2Fnoop&wait=60s";
const REPLACED: &str = "/v1/plugins/bench";
/// How long jobs run before anything is replaced.
const BEFORE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(2);
const REPLACE_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    place: Where,
    /// Plugins in the folder, no two of them alike
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=999))]
    plugins: u32,
    /// Starts with compiled code from the cache; the figure is of the one in the middle
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    starts: u32,
    /// How often the plugin is replaced whose jobs run
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    replacements: u32,
    /// Jobs at once meanwhile, each waited for over a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
}

impl Reload {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<Report> {
        let ground = Arc::new(self.place.ground()?);
        for n in 1..self.plugins {
            ground.put(&format!("other-{n:03}"), &unlike(n))?;
        }
        ground.put("bench", &unlike(0))?;
        let mut report = Report::new("reload");
        report.with("host", "its own, a process beside this one");
        ground.tell(&mut report);
        report.with("plugins", self.plugins);
        report.with("component-bytes", COMPONENT.len());
        report.with("starts", self.starts);
        report.with("connections", self.connections);

        // A cache of its own: the first start compiles everything.
        let cache = ground.path().join("cache");
        let cold = Served::start(Arc::clone(&ground), settings, &cache).await?.ready_after;
        let mut ready = Vec::new();
        for _ in 1..self.starts {
            let served = Served::start(Arc::clone(&ground), settings, &cache).await?;
            ready.push(served.ready_after.as_secs_f64() * 1e3);
        }
        let served = Served::start(Arc::clone(&ground), settings, &cache).await?;
        ready.push(served.ready_after.as_secs_f64() * 1e3);
        report.length("ready-after-compiling-all", cold);
        report.figure("ready-after-with-all-compiled", median(ready), Unit::Millis);

        let small = Arc::new(Small::default());
        let mut callers = Vec::new();
        for _ in 0..self.connections {
            callers.push(tokio::spawn(Arc::clone(&small).call_until_stopped(served.place.clone())));
        }
        tokio::time::sleep(BEFORE).await;
        small.replacing.store(true, Ordering::Relaxed);
        let replaced = self.replace(&ground, &served.place).await;
        small.stopped.store(true, Ordering::Relaxed);
        let (mut before, mut during) = (Spread::new()?, Spread::new()?);
        for caller in callers {
            let (quiet, replacing) = caller.await.context("a caller has panicked")??;
            before.merge(&quiet)?;
            during.merge(&replacing)?;
        }
        let failed = small.failed.load(Ordering::Relaxed);
        report.figure("replacements", f64::from(self.replacements), Unit::Count);
        report.figure("jobs-meanwhile", during.count() as f64, Unit::Count);
        report.figure("jobs-that-failed", failed as f64, Unit::Count);
        let p99 = |spread: &Spread| spread.at(0.99).as_secs_f64();
        report.figure("p99-while-replacing-to-before", p99(&during) / p99(&before).max(1e-9), Unit::Ratio);
        report.spread("small-job-before", before);
        report.spread("small-job-while-replacing", during);
        report.spread("file-to-next-version", replaced?);
        Ok(report)
    }

    /// Puts versions into the folder one after the other, each when the one before is loaded.
    async fn replace(&self, ground: &super::ground::Ground, place: &Place) -> anyhow::Result<Spread> {
        let mut connection = place.connect().await?;
        let mut spread = Spread::new()?;
        let digest = |plugin: &serde_json::Value| plugin["loaded"]["digest"].clone();
        for n in 0..self.replacements {
            let before = digest(&connection.json(REPLACED).await?);
            let began = Instant::now();
            // Numbers that no other plugin of the folder has.
            ground.put("bench", &unlike(1_000_000 + n))?;
            while digest(&connection.json(REPLACED).await?) == before {
                if began.elapsed() > REPLACE_PATIENCE {
                    bail!("a new version was not loaded within {REPLACE_PATIENCE:?}");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            spread.add(began.elapsed());
        }
        Ok(spread)
    }
}

/// Small jobs, one after the other on each connection.
#[derive(Default)]
struct Small {
    replacing: AtomicBool,
    stopped: AtomicBool,
    failed: AtomicU64,
}

impl Small {
    /// How long they took before anything was replaced, and since.
    async fn call_until_stopped(self: Arc<Self>, place: Place) -> anyhow::Result<(Spread, Spread)> {
        let mut connection = place.connect().await?;
        let (mut before, mut during) = (Spread::new()?, Spread::new()?);
        while !self.stopped.load(Ordering::Relaxed) {
            let began = Instant::now();
            let (status, _) = connection.ask(Method::POST, SMALL_JOB, "application/octet-stream", Bytes::new()).await?;
            if status != 200 {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            let spread = if self.replacing.load(Ordering::Relaxed) { &mut during } else { &mut before };
            spread.add(began.elapsed());
        }
        Ok((before, during))
    }
}

/// The component, in a version of its own: a custom section carries the number, so that digest and cache entry are others.
fn unlike(number: u32) -> Vec<u8> {
    const CUSTOM: u8 = 0;
    const NAME: &[u8; 5] = b"bench";
    let number = number.to_le_bytes();
    let mut component = COMPONENT.to_vec();
    component.extend([CUSTOM, (1 + NAME.len() + number.len()) as u8, NAME.len() as u8]);
    component.extend(NAME);
    component.extend(number);
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_differ_by_one_section() {
        let (one, other) = (unlike(1), unlike(2));
        assert!(one != other && one.len() == COMPONENT.len() + 12);
        assert_eq!(one[..COMPONENT.len()], *COMPONENT);
        // Kind, length, and as many bytes as it says.
        assert_eq!(one[COMPONENT.len()..COMPONENT.len() + 2], [0, 10]);
    }
}
