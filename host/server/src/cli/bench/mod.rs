//! `wharf bench`: measures this machine with Wharf on it, and prints each figure with the conditions under which it holds.

mod cost;
mod report;
mod disk;
mod ground;
mod load;
mod own;
mod calls;
mod wire;
mod running;
mod target;
mod served;
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

use super::cli_error::{Ending, Exit};
use super::in_process::runtime;
use super::progress::Progress;
use super::serve::raise_file_limit;
use crate::config::Settings;
use cost::Beside;
use report::Report;
use wire::Place;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Jobs a second, enqueued, run in a fresh sandbox each and recorded; the latency of single jobs
    Jobs(jobs::Jobs),
    /// The same with many keys, one job of each at a time, against jobs without keys
    Keys(keys::Keys),
    /// Requests a second over HTTP, each enqueuing one job durably, and their latency
    Http(http::Http),
    /// A broadcast to subscribers that wait, against native sleeps; and to some that do nothing
    Broadcast(broadcast::Broadcast),
    /// Calls a second in a fresh sandbox each, without a queue; or memory while thousands are suspended
    Sandbox(sandbox::Sandbox),
    /// The latency of small jobs before and beside attempts that compute without end
    Isolation(isolation::Isolation),
    /// What a claim, a record and an enqueue cost with few and with many waiting jobs
    Backlog(backlog::Backlog),
    /// How soon a host with many plugins is ready, and what jobs notice of a plugin that is replaced
    Reload(reload::Reload),
    /// Write the plugin that these run, for the folder of a running host
    Plugin(plugin::Plugin),
}

impl Command {
    /// `running` says that a running host was named, which then is measured in place of one of the bench's own.
    pub(crate) fn run(self, settings: &Settings, running: bool, json: bool) -> anyhow::Result<Exit> {
        if let Command::Plugin(plugin) = self {
            return plugin.run();
        }
        let place = running.then(|| Place::new(&settings.host, settings.token.clone())).transpose()?;
        raise_file_limit();
        let progress = Progress::new("measuring");
        let runtime = runtime()?;
        let beside = Beside::now()?;
        let mut report = runtime.block_on(self.measured(settings, place))?;
        report.with("busy-cores-of-others", (beside.cores()? * 100.0).round() / 100.0);
        progress.done();
        report.print(json)?;
        Ok(Exit::Done)
    }

    async fn measured(self, settings: &Settings, running: Option<Place>) -> anyhow::Result<Report> {
        let alone = |name: &str| match &running {
            None => Ok(()),
            Some(_) => Err(Ending::usage(format!(
                "`wharf bench {name}` needs a host of its own; --host is for jobs, keys, http and broadcast"
            ))),
        };
        match self {
            Command::Jobs(jobs) => jobs.run(settings, running).await,
            Command::Keys(keys) => keys.run(settings, running).await,
            Command::Http(http) => http.run(settings, running).await,
            Command::Broadcast(broadcast) => broadcast.run(settings, running).await,
            Command::Sandbox(sandbox) => {
                alone("sandbox")?;
                sandbox.run(settings).await
            }
            Command::Isolation(isolation) => {
                alone("isolation")?;
                isolation.run(settings).await
            }
            Command::Backlog(backlog) => {
                alone("backlog")?;
                backlog.run().await
            }
            Command::Reload(reload) => {
                alone("reload")?;
                reload.run(settings).await
            }
            Command::Plugin(_) => Err(Ending::usage("this measures nothing").into()),
        }
    }
}
