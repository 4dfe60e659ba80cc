//! `wharf bench jobs`: jobs that are enqueued, run in a fresh sandbox each and recorded, and single jobs on an idle host.

use anyhow::Context as _;
use clap::Args;

use super::disk::SyncedFile;
use super::load::LoadArgs;
use super::process_stats::{Process, UsageTimer};
use super::raw_http::HostAddress;
use super::report::{BenchReport, Latencies, Unit};
use super::target::Target;
use super::workspace::WorkspaceArgs;
use crate::config::Settings;

#[derive(Debug, Args)]
pub(crate) struct JobsBench {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Number of measured jobs; a tenth as many run before to warm up
    #[arg(long, value_name = "COUNT", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// Number of jobs in one request
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Number of single jobs on the idle host, one after the other, for the latency
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    singles: u32,
}

impl JobsBench {
    pub(super) async fn run(self, settings: &Settings, remote: Option<HostAddress>) -> anyhow::Result<BenchReport> {
        let load = self.load.read()?;
        let target = Target::open(self.workspace.create()?, settings, remote, &load).await?;
        let mut report = BenchReport::new("jobs");
        target.describe(settings, &mut report);
        load.describe(&mut report);
        report.with("jobs", self.jobs);
        report.with("batch", self.batch);

        target.run(self.jobs.div_ceil(10), self.batch, &load.task, |_| load.request(None)).await?;
        let timer = UsageTimer::now(Process::This)?;
        let took = target.run(self.jobs, self.batch, &load.task, |_| load.request(None)).await?;
        let usage = timer.usage()?;
        report.figure("jobs", f64::from(self.jobs) / took.as_secs_f64(), Unit::PerSecond);

        let mut singles = Latencies::new()?;
        let mut synced = match &target {
            Target::Embedded { workspace, .. } => Some((SyncedFile::new(workspace.path())?, Latencies::new()?)),
            Target::Remote(_) => None,
        };
        for _ in 0..self.singles {
            singles.add(target.single(load.request(None)).await?);
            if let Some((file, latencies)) = &mut synced {
                let took = tokio::task::block_in_place(|| file.append_page()).context("could not measure the disk")?;
                latencies.add(took);
            }
        }
        if let Some((_, fsync)) = synced {
            let beyond = singles.at(0.5).saturating_sub(2 * fsync.at(0.5));
            report.duration("single-beyond-two-fsyncs", beyond);
            report.latencies("fsync-of-a-page", fsync);
            report.usage("", usage, u64::from(self.jobs), "job");
        }
        report.latencies("enqueue-to-result", singles);
        target.stop().await;
        Ok(report)
    }
}
