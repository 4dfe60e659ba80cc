//! `wharf bench keys`: compares jobs with many keys, one of each key at a time, with jobs without keys, in turns on one host.

use clap::Args;

use super::load::Load;
use super::raw_http::HostAddress;
use super::report::{BenchReport, Unit, median};
use super::target::Target;
use super::workspace::WorkspaceArgs;
use crate::config::Settings;

#[derive(Debug, Args)]
pub(crate) struct KeysBench {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    /// Number of keys that the jobs use in turns; one job of each key runs at a time
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    keys: u32,
    /// Number of jobs in each round
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// Number of jobs in one request
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Number of rounds of each kind; the figures are medians
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

impl KeysBench {
    pub(super) async fn run(self, settings: &Settings, remote: Option<HostAddress>) -> anyhow::Result<BenchReport> {
        let (plain, keyed) = (Load::built_in("noop"), Load::built_in("keyed"));
        let target = Target::open(self.workspace.create()?, settings, remote, &plain).await?;
        let mut report = BenchReport::new("keys");
        target.describe(settings, &mut report);
        plain.describe(&mut report);
        report.with("jobs", self.jobs);
        report.with("batch", self.batch);
        report.with("keys", self.keys);
        report.with("per-key", 1);
        report.with("rounds", self.rounds);

        let (mut without, mut with) = (Vec::new(), Vec::new());
        // The first round warms up.
        for round in 0..=self.rounds {
            let jobs = if round == 0 { self.jobs.div_ceil(10) } else { self.jobs };
            let rate = |took: std::time::Duration| f64::from(jobs) / took.as_secs_f64();
            let unkeyed = target.run(jobs, self.batch, &plain.task, |_| plain.request(None)).await?;
            let request = |n: u32| keyed.request(Some(format!("k{}", n % self.keys)));
            let of_keys = target.run(jobs, self.batch, &keyed.task, request).await?;
            if round > 0 {
                without.push(rate(unkeyed));
                with.push(rate(of_keys));
            }
        }
        let (without, with) = (median(without), median(with));
        report.figure("jobs-without-key", without, Unit::PerSecond);
        report.figure("jobs-of-keys", with, Unit::PerSecond);
        report.figure("of-keys-to-without", with / without, Unit::Ratio);
        target.stop().await;
        Ok(report)
    }
}
