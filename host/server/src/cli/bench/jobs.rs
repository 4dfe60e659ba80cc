//! `wharf bench jobs`: enqueued, run in a fresh sandbox each, recorded; and single jobs on an idle host.

use anyhow::Context as _;
use clap::Args;

use super::cost::{Since, Whose};
use super::disk::Synced;
use super::ground::Where;
use super::load::Load;
use super::report::{Report, Spread, Unit};
use super::target::Target;
use super::wire::Place;
use crate::config::Settings;

#[derive(Debug, Args)]
pub(crate) struct Jobs {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    load: Load,
    /// Jobs that count; a tenth as many run before
    #[arg(long, value_name = "COUNT", default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// Jobs in one request
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Single jobs on the idle host, one after the other, for the latency
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    singles: u32,
}

impl Jobs {
    pub(super) async fn run(self, settings: &Settings, running: Option<Place>) -> anyhow::Result<Report> {
        let load = self.load.ready()?;
        let target = Target::make(self.place.ground()?, settings, running, &load).await?;
        let mut report = Report::new("jobs");
        target.tell(settings, &mut report);
        load.tell(&mut report);
        report.with("jobs", self.jobs);
        report.with("batch", self.batch);

        target.run(self.jobs.div_ceil(10), self.batch, &load.task, |_| load.request(None)).await?;
        let since = Since::now(Whose::This)?;
        let took = target.run(self.jobs, self.batch, &load.task, |_| load.request(None)).await?;
        let cost = since.cost()?;
        report.figure("jobs", f64::from(self.jobs) / took.as_secs_f64(), Unit::PerSecond);

        let mut singles = Spread::new()?;
        let mut synced = match &target {
            Target::Own { ground, .. } => Some((Synced::new(ground.path())?, Spread::new()?)),
            Target::Running(_) => None,
        };
        for _ in 0..self.singles {
            singles.add(target.single(load.request(None)).await?);
            if let Some((file, spread)) = &mut synced {
                let took = tokio::task::block_in_place(|| file.page()).context("measuring the disk")?;
                spread.add(took);
            }
        }
        if let Some((_, fsync)) = synced {
            let over = singles.at(0.5).saturating_sub(2 * fsync.at(0.5));
            report.length("single-beyond-two-fsyncs", over);
            report.spread("fsync-of-a-page", fsync);
            report.cost("", cost, u64::from(self.jobs), "job");
        }
        report.spread("enqueue-to-result", singles);
        target.stop().await;
        Ok(report)
    }
}
