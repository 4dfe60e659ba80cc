//! `wharf bench http`: single jobs over connections that are kept open, each acknowledged when it is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::Bytes;
use axum::http::Method;
use clap::Args;
use futures_util::future::join_all;

use super::load::{Load, LoadArgs};
use super::process_stats::{Process, UsageTimer};
use super::raw_http::HostAddress;
use super::remote_host::RemoteHost;
use super::report::{BenchReport, Latencies, Unit};
use super::subprocess_host::SubprocessHost;
use super::workspace::WorkspaceArgs;
use crate::cli_error::{CliError, ExitStatus};
use crate::config::Settings;
use crate::http::encode;

#[derive(Debug, Args)]
pub(crate) struct HttpBench {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Number of connections, each of which waits for a response before it sends the next request
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4000))]
    connections: u32,
    /// Number of measured requests; a tenth as many are sent before to warm up
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    requests: u32,
}

impl HttpBench {
    pub(super) async fn run(self, settings: &Settings, remote: Option<HostAddress>) -> anyhow::Result<BenchReport> {
        let load = self.load.read()?;
        let mut report = BenchReport::new("http");
        let (address, served) = match remote {
            Some(address) => {
                report.with("host", settings.host.as_str());
                (address, None)
            }
            None => {
                let workspace = self.workspace.create()?;
                load.put(&workspace)?;
                report.with("host", "its own, a process beside this one");
                workspace.describe(&mut report);
                report.with("at-once", settings.attempts_at_once);
                let served = SubprocessHost::start(Arc::new(workspace), settings, &settings.cache.dir).await?;
                (served.address.clone(), Some(served))
            }
        };
        load.describe(&mut report);
        report.with("connections", self.connections);
        report.with("requests", self.requests);

        let host = RemoteHost::reach(address.clone(), &load.task).await?;
        requests(&address, &load, self.connections, self.requests.div_ceil(10)).await?;
        host.until_all_ended(&load.task).await?;
        let here = UsageTimer::now(Process::This)?;
        let there = served.as_ref().map(|served| UsageTimer::now(served.process())).transpose()?;
        let (took, latencies) = requests(&address, &load, self.connections, self.requests).await?;
        let (here, started) = (here.usage()?, Instant::now());
        host.until_all_ended(&load.task).await?;
        let behind = started.elapsed();

        report.figure("requests", latencies.count() as f64 / took.as_secs_f64(), Unit::PerSecond);
        report.figure("jobs-run", latencies.count() as f64 / (took + behind).as_secs_f64(), Unit::PerSecond);
        report.duration("until-all-had-run-after-the-last-answer", behind);
        report.duration("client-processor-per-request", here.cpu.div_f64(latencies.count() as f64));
        if let Some(there) = there {
            report.usage("host", there.usage()?, latencies.count(), "job");
        }
        report.latencies("request", latencies);
        Ok(report)
    }
}

async fn requests(
    address: &HostAddress,
    load: &Load,
    connections: u32,
    count: u32,
) -> anyhow::Result<(Duration, Latencies)> {
    let mut open = Vec::new();
    for _ in 0..connections.min(count) {
        open.push(address.connect().await?);
    }
    let path: Arc<str> = format!("/v1/jobs?task={}", encode(&load.task)).into();
    let (payload, left) = (Bytes::from(load.payload.clone()), Arc::new(AtomicU32::new(count)));
    let started = Instant::now();
    let each = open.into_iter().map(|mut connection| {
        let (path, payload, left) = (Arc::clone(&path), payload.clone(), Arc::clone(&left));
        tokio::spawn(async move {
            let mut latencies = Latencies::new()?;
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let sent = Instant::now();
                let (status, response) =
                    connection.request(Method::POST, &path, "application/octet-stream", payload.clone()).await?;
                latencies.add(sent.elapsed());
                if status != 202 {
                    let body = String::from_utf8_lossy(&response).into_owned();
                    return Err(CliError::new(
                        ExitStatus::Refused,
                        format!("the host responded with {status}: {body}"),
                    )
                    .into());
                }
            }
            anyhow::Ok(latencies)
        })
    });
    let each = join_all(each).await;
    let took = started.elapsed();
    let mut all = Latencies::new()?;
    for latencies in each {
        all.merge(&latencies.context("a client panicked")??)?;
    }
    Ok((took, all))
}
