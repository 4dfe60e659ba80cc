//! `wharf bench`: a load generator that measures Wharf on this machine, and prints its figures with their conditions.

mod process_stats;
mod report;
mod disk;
mod workspace;
mod load;
mod embedded_host;
mod calls;
mod raw_http;
mod remote_host;
mod target;
mod subprocess_host;
mod jobs;
mod keys;
mod http;
mod broadcast;
mod sandbox;
mod isolation;
mod backlog;
mod reload;
mod plugin;

use clap::Subcommand;

use crate::cli_error::{CliError, ExitStatus};
use crate::config::Settings;
use crate::file_limit::raise_file_limit;
use crate::in_process_engine::runtime;
use crate::progress::Progress;
use process_stats::MachineLoad;
use raw_http::HostAddress;
use report::BenchReport;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure jobs per second, each run in a fresh sandbox and recorded, and the latency of single jobs
    Jobs(jobs::JobsBench),
    /// Compare jobs with many keys, of which each runs one job at a time, with jobs without keys
    Keys(keys::KeysBench),
    /// Measure HTTP requests that durably enqueue one job each: requests per second and latency
    Http(http::HttpBench),
    /// Compare a broadcast to subscribers that wait with native sleeps, and measure idle subscribers
    Broadcast(broadcast::BroadcastBench),
    /// Measure calls per second in fresh sandboxes without a queue, or the memory of suspended attempts
    Sandbox(sandbox::SandboxBench),
    /// Compare the latency of small jobs before and beside attempts that never stop computing, and many that sleep
    Isolation(isolation::IsolationBench),
    /// Measure the cost of a claim, a record and an enqueue with few and with many waiting jobs
    Backlog(backlog::BacklogBench),
    /// Measure how soon a host with many plugins is ready, and how replacing a plugin affects running jobs
    Reload(reload::ReloadBench),
    /// Write the plugin that the benchmarks run, for the plugin folder of a running host
    Plugin(plugin::WritePlugin),
}

impl BenchCommand {
    /// Runs the benchmark: on the host that `settings.host` names if `remote` is true, else on a temporary host.
    pub(crate) fn run(self, settings: &Settings, remote: bool, json: bool) -> anyhow::Result<ExitStatus> {
        if let BenchCommand::Plugin(plugin) = self {
            return plugin.run();
        }
        let address = remote.then(|| HostAddress::new(&settings.host, settings.token.clone())).transpose()?;
        raise_file_limit();
        let progress = Progress::new("measuring");
        let runtime = runtime()?;
        let machine_load = MachineLoad::now()?;
        let mut report = runtime.block_on(self.measure(settings, address))?;
        report.with("busy-cores-of-others", (machine_load.cores()? * 100.0).round() / 100.0);
        progress.finish();
        report.print(json)?;
        Ok(ExitStatus::Done)
    }

    async fn measure(self, settings: &Settings, remote: Option<HostAddress>) -> anyhow::Result<BenchReport> {
        let refuse_remote = |name: &str| match &remote {
            None => Ok(()),
            Some(_) => Err(CliError::usage(format!(
                "`wharf bench {name}` cannot measure a running host; use --host with jobs, keys, http or broadcast only"
            ))),
        };
        match self {
            BenchCommand::Jobs(jobs) => jobs.run(settings, remote).await,
            BenchCommand::Keys(keys) => keys.run(settings, remote).await,
            BenchCommand::Http(http) => http.run(settings, remote).await,
            BenchCommand::Broadcast(broadcast) => broadcast.run(settings, remote).await,
            BenchCommand::Sandbox(sandbox) => {
                refuse_remote("sandbox")?;
                sandbox.run(settings).await
            }
            BenchCommand::Isolation(isolation) => {
                refuse_remote("isolation")?;
                isolation.run(settings).await
            }
            BenchCommand::Backlog(backlog) => {
                refuse_remote("backlog")?;
                backlog.run().await
            }
            BenchCommand::Reload(reload) => {
                refuse_remote("reload")?;
                reload.run(settings).await
            }
            BenchCommand::Plugin(_) => Err(CliError::usage("`wharf bench plugin` measures nothing").into()),
        }
    }
}
