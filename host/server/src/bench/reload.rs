//! `wharf bench reload`: the time until a host with many plugins is ready, and the effect of replacing a plugin on its jobs
//! that run meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::body::Bytes;
use axum::http::Method;
use clap::Args;

use super::raw_http::HostAddress;
use super::report::{BenchReport, Latencies, Unit, median};
use super::subprocess_host::SubprocessHost;
use super::workspace::{COMPONENT, Workspace, WorkspaceArgs};
use crate::config::Settings;

/// The request for a small job, whose response is the result.
const SMALL_JOB: &str = "/v1/jobs?task=bench%2Fnoop&wait=60s";
const REPLACED: &str = "/v1/plugins/bench";
/// The time for which jobs run before the plugin is replaced.
const BEFORE: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
const REPLACE_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, Args)]
pub(crate) struct ReloadBench {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    /// Number of plugins in the folder, all of them different
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=999))]
    plugins: u32,
    /// Number of starts with compiled code from the cache; the figure is the median
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    starts: u32,
    /// Number of times that the plugin is replaced while its jobs run
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    replacements: u32,
    /// Number of connections that meanwhile run one job after the other
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
}

impl ReloadBench {
    pub(super) async fn run(self, settings: &Settings) -> anyhow::Result<BenchReport> {
        let workspace = Arc::new(self.workspace.create()?);
        for n in 1..self.plugins {
            workspace.put(&format!("other-{n:03}"), &version(n))?;
        }
        workspace.put("bench", &version(0))?;
        let mut report = BenchReport::new("reload");
        report.with("host", "its own, a process beside this one");
        workspace.describe(&mut report);
        report.with("plugins", self.plugins);
        report.with("component-bytes", COMPONENT.len());
        report.with("starts", self.starts);
        report.with("connections", self.connections);

        // A new cache, so the first start compiles everything.
        let cache = workspace.path().join("cache");
        let cold = SubprocessHost::start(Arc::clone(&workspace), settings, &cache).await?.ready_after;
        let mut ready = Vec::new();
        for _ in 1..self.starts {
            let served = SubprocessHost::start(Arc::clone(&workspace), settings, &cache).await?;
            ready.push(served.ready_after.as_secs_f64() * 1e3);
        }
        let served = SubprocessHost::start(Arc::clone(&workspace), settings, &cache).await?;
        ready.push(served.ready_after.as_secs_f64() * 1e3);
        report.duration("ready-after-compiling-all", cold);
        report.figure("ready-after-with-all-compiled", median(ready), Unit::Millis);

        let small = Arc::new(SmallJobs::default());
        let mut callers = Vec::new();
        for _ in 0..self.connections {
            callers.push(tokio::spawn(Arc::clone(&small).call_until_stopped(served.address.clone())));
        }
        tokio::time::sleep(BEFORE).await;
        small.replacing.store(true, Ordering::Relaxed);
        let replaced = self.replace(&workspace, &served.address).await;
        small.stopped.store(true, Ordering::Relaxed);
        let (mut before, mut during) = (Latencies::new()?, Latencies::new()?);
        for caller in callers {
            let (quiet, replacing) = caller.await.context("a caller panicked")??;
            before.merge(&quiet)?;
            during.merge(&replacing)?;
        }
        let failed = small.failed.load(Ordering::Relaxed);
        report.figure("replacements", f64::from(self.replacements), Unit::Count);
        report.figure("jobs-meanwhile", during.count() as f64, Unit::Count);
        report.figure("jobs-that-failed", failed as f64, Unit::Count);
        let p99 = |latencies: &Latencies| latencies.at(0.99).as_secs_f64();
        report.figure("p99-while-replacing-to-before", p99(&during) / p99(&before).max(1e-9), Unit::Ratio);
        report.latencies("small-job-before", before);
        report.latencies("small-job-while-replacing", during);
        report.latencies("file-to-next-version", replaced?);
        Ok(report)
    }

    /// Puts new versions into the folder, each once the previous one is loaded; returns the latency of each.
    async fn replace(&self, workspace: &Workspace, address: &HostAddress) -> anyhow::Result<Latencies> {
        let mut connection = address.connect().await?;
        let mut latencies = Latencies::new()?;
        let digest = |plugin: &serde_json::Value| plugin["loaded"]["digest"].clone();
        for n in 0..self.replacements {
            let before = digest(&connection.json(REPLACED).await?);
            let started = Instant::now();
            // Numbers that no other plugin in the folder has.
            workspace.put("bench", &version(1_000_000 + n))?;
            while digest(&connection.json(REPLACED).await?) == before {
                if started.elapsed() > REPLACE_TIMEOUT {
                    bail!("a new version was not loaded within {REPLACE_TIMEOUT:?}");
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            latencies.add(started.elapsed());
        }
        Ok(latencies)
    }
}

/// The state shared by the connections that run small jobs.
#[derive(Default)]
struct SmallJobs {
    replacing: AtomicBool,
    stopped: AtomicBool,
    failed: AtomicU64,
}

impl SmallJobs {
    /// Runs small jobs over one connection until stopped; returns the latencies before and during replacements.
    async fn call_until_stopped(self: Arc<Self>, address: HostAddress) -> anyhow::Result<(Latencies, Latencies)> {
        let mut connection = address.connect().await?;
        let (mut before, mut during) = (Latencies::new()?, Latencies::new()?);
        while !self.stopped.load(Ordering::Relaxed) {
            let started = Instant::now();
            let (status, _) =
                connection.request(Method::POST, SMALL_JOB, "application/octet-stream", Bytes::new()).await?;
            if status != 200 {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            let latencies = if self.replacing.load(Ordering::Relaxed) { &mut during } else { &mut before };
            latencies.add(started.elapsed());
        }
        Ok((before, during))
    }
}

/// Returns a version of the component that differs in digest and cache entry: a custom section contains the number.
fn version(number: u32) -> Vec<u8> {
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
        let (one, other) = (version(1), version(2));
        assert!(one != other && one.len() == COMPONENT.len() + 12);
        assert_eq!(one[..COMPONENT.len()], *COMPONENT);
        // Kind, length, and as many bytes as it says.
        assert_eq!(one[COMPONENT.len()..COMPONENT.len() + 2], [0, 10]);
    }
}
