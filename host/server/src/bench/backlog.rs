//! `wharf bench backlog`: the cost of a claim, a record and an enqueue in a store with few and with many waiting jobs.
//!
//! Stores of all sizes are filled first and opened again, which completes the work that filling leaves behind. Then they take
//! turns, so other load on the machine slows all of them alike. Each round enqueues as many jobs as it claims.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{LeasedJob, NewJob};
use wharf_core::lifecycle::Event;
use wharf_core::limits::{LimitTable, Limits};
use wharf_core::outcome::Usage;
use wharf_core::room::Room;
use wharf_store::{Claim, Store};

use super::process_stats::{Process, anonymous_bytes, cpu_time};
use super::report::{BenchReport, Unit, median};
use super::workspace::{Workspace, WorkspaceArgs};
use crate::cli_error::CliError;
use crate::open_store::open_store;

/// The number of jobs in one claim, in one record and in one enqueue.
const BATCH_JOBS: u32 = 32;
/// The number of rounds of one store before the next one's turn.
const TURN_ROUNDS: u32 = 20;
/// The number of jobs per key in the case of many keys. It is the same for all sizes, so stores differ in size only.
const JOBS_PER_KEY: u32 = 10;
/// The number of jobs in one insert while a store is filled.
const FILL_BATCH_JOBS: u32 = 10_000;
const PAYLOAD: &[u8] = br#"{"text":"the quick brown fox jumps over the lazy dog"}"#;

#[derive(Debug, Args)]
pub(crate) struct BacklogBench {
    #[command(flatten)]
    workspace: WorkspaceArgs,
    /// Numbers of waiting jobs; the last is compared with the first
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000], value_parser = clap::value_parser!(u32).range(i64::from(BATCH_JOBS * JOBS_PER_KEY)..=100_000_000))]
    waiting: Vec<u32>,
    /// Number of measured rounds of a claim, a record and an enqueue; a sixth as many run before to warm up
    #[arg(long, value_name = "COUNT", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
}

impl BacklogBench {
    pub(super) async fn run(self) -> anyhow::Result<BenchReport> {
        let workspace = self.workspace.create()?;
        let mut report = BenchReport::new("backlog");
        workspace.describe(&mut report);
        report.with("payload_bytes", PAYLOAD.len());
        report.with("batch", BATCH_JOBS);
        report.with("rounds", self.rounds);
        report.with("waiting", self.waiting.clone());
        report.with("many-keys", format!("{JOBS_PER_KEY} jobs behind each, one of which may run"));
        for (case, keys) in [("one-key", None), ("many-keys", Some(JOBS_PER_KEY))] {
            self.case(&workspace, case, keys, &mut report).await?;
        }
        Ok(report)
    }

    async fn case(
        &self,
        workspace: &Workspace,
        case: &str,
        each: Option<u32>,
        report: &mut BenchReport,
    ) -> anyhow::Result<()> {
        let mut stores = Vec::new();
        for waiting in &self.waiting {
            let keys = each.map_or(1, |each| waiting.div_ceil(each));
            let address = workspace.another_store(&format!("{}_{waiting}", case.replace('-', "_")))?;
            let mut bench = OpenStore::open(&address, keys, if each.is_some() { 1 } else { BATCH_JOBS }).await?;
            bench.fill(*waiting).await?;
            // Closing it writes its log to its file, and empties its cache.
            stores.push((address, bench.closed()));
        }
        let mut opened = Vec::new();
        for (address, closed) in stores {
            let before = anonymous_bytes(Process::This)?;
            let mut bench = closed.open(&address).await?;
            let mut warm_up = RoundTimes::default();
            for _ in 0..self.rounds.div_ceil(6) {
                bench.round(&mut warm_up).await?;
            }
            let memory = anonymous_bytes(Process::This)?.saturating_sub(before);
            opened.push((bench, RoundTimes::default(), memory));
        }
        let mut done = 0;
        while done < self.rounds {
            let turn = TURN_ROUNDS.min(self.rounds - done);
            for (bench, times, _) in &mut opened {
                for _ in 0..turn {
                    bench.round(times).await?;
                }
            }
            done += turn;
        }
        let mut ends: Vec<Vec<(&str, f64)>> = Vec::new();
        for (waiting, (_, times, memory)) in self.waiting.iter().zip(opened) {
            let mut row = Vec::new();
            for (what, times) in times.each() {
                let jobs = f64::from(BATCH_JOBS * self.rounds);
                let clock = median(times.iter().map(|(wall, _)| wall.as_secs_f64() * 1e3).collect());
                let on_core = times.iter().map(|(_, core)| core.as_secs_f64() * 1e3).sum::<f64>() / jobs;
                report.figure(format!("{what}-{waiting}-waiting-{case}"), clock, Unit::Millis);
                report.figure(format!("{what}-per-job-on-a-core-{waiting}-waiting-{case}"), on_core, Unit::Millis);
                row.push((what, on_core));
                row.push((what, clock));
            }
            report.figure(format!("memory-of-the-store-{waiting}-waiting-{case}"), memory as f64, Unit::Bytes);
            ends.push(row);
        }
        if let [first, .., last] = &ends[..] {
            for (at, ((what, a), (_, b))) in last.iter().zip(first).enumerate() {
                let by = if at % 2 == 0 { "on-a-core" } else { "by-the-clock" };
                report.figure(format!("{what}-at-most-to-fewest-{by}-{case}"), a / b, Unit::Ratio);
            }
        }
        Ok(())
    }
}

/// A store, and what is needed to make jobs for it.
struct OpenStore {
    store: Arc<dyn Store>,
    jobs: JobSource,
}

struct JobSource {
    task: TaskName,
    declared: Arc<LimitTable>,
    keys: u32,
    next_key: u32,
}

/// The times of the rounds of one store: wall time and CPU time.
#[derive(Default)]
struct RoundTimes {
    claims: Vec<(Duration, Duration)>,
    records: Vec<(Duration, Duration)>,
    enqueues: Vec<(Duration, Duration)>,
}

impl RoundTimes {
    fn each(&self) -> [(&'static str, &Vec<(Duration, Duration)>); 3] {
        [("claim", &self.claims), ("record", &self.records), ("enqueue", &self.enqueues)]
    }
}

impl JobSource {
    async fn open(self, address: &str) -> anyhow::Result<OpenStore> {
        Ok(OpenStore { store: open_store(address).await?, jobs: self })
    }

    fn new_job(&mut self, id: JobId) -> anyhow::Result<NewJob> {
        // Strides through the keys, so jobs that follow each other are not neighbours in the index.
        self.next_key = (self.next_key + 7919) % self.keys;
        let key = format!("tenant-{}", self.next_key).parse().context("a key of the benchmark is invalid")?;
        Ok(NewJob::ready(id, self.task.clone(), Some(key), PAYLOAD.into()))
    }
}

impl OpenStore {
    async fn open(address: &str, keys: u32, per_key: u32) -> anyhow::Result<OpenStore> {
        let task: TaskName = "bench/noop".parse().context("the task of the benchmark is invalid")?;
        let mut declared = LimitTable::default();
        declared.declare(Group::from(&task), Limits { per_key: Some(per_key), total: None });
        JobSource { task, declared: Arc::new(declared), keys, next_key: 0 }.open(address).await
    }

    fn closed(self) -> JobSource {
        self.jobs
    }

    async fn enqueue(&mut self, count: u32) -> anyhow::Result<()> {
        let jobs: anyhow::Result<_> = (0..count).map(|_| self.jobs.new_job(self.store.next_id()?)).collect();
        self.store.insert(jobs?, Arc::clone(&self.jobs.declared)).await?;
        Ok(())
    }

    async fn fill(&mut self, waiting: u32) -> anyhow::Result<()> {
        for start in (0..waiting).step_by(FILL_BATCH_JOBS as usize) {
            self.enqueue((waiting - start).min(FILL_BATCH_JOBS)).await?;
        }
        Ok(())
    }

    /// Claims jobs, records their ends and enqueues as many new ones.
    async fn round(&mut self, times: &mut RoundTimes) -> anyhow::Result<()> {
        let claim = Claim {
            node: NodeId(1),
            tasks: [(self.jobs.task.clone(), Group::from(&self.jobs.task))].into(),
            declared: Arc::clone(&self.jobs.declared),
            free: BATCH_JOBS,
            room: Room::UNLIMITED,
            costs: Arc::default(),
            task_quotas: Vec::new(),
            lease: Duration::from_secs(600),
        };
        let started = Stopwatch::now()?;
        let leased = self.store.claim(claim).await?.leased;
        times.claims.push(started.since()?);
        if leased.len() != BATCH_JOBS as usize {
            bail!("a claim of {BATCH_JOBS} jobs took {}", leased.len());
        }
        let ended = leased.iter().map(ended).collect();
        let started = Stopwatch::now()?;
        self.store.record(Arc::new(ended)).await?;
        times.records.push(started.since()?);
        let started = Stopwatch::now()?;
        self.enqueue(BATCH_JOBS).await?;
        times.enqueues.push(started.since()?);
        Ok(())
    }
}

fn ended(leased: &LeasedJob) -> (JobId, Event) {
    let attempt = leased.lease.attempt;
    let event =
        Event::Succeeded { attempt, output: [].into(), children: Vec::new(), changes: None, usage: Usage::default() };
    (leased.lease.job, event)
}

struct Stopwatch(Instant, Duration);

impl Stopwatch {
    fn now() -> anyhow::Result<Stopwatch> {
        Ok(Stopwatch(Instant::now(), cpu_time(Process::This)?))
    }

    fn since(&self) -> anyhow::Result<(Duration, Duration)> {
        Ok((self.0.elapsed(), cpu_time(Process::This)?.saturating_sub(self.1)))
    }
}

impl Workspace {
    /// Returns the address of one of several stores: a file each, or a schema each in one database.
    fn another_store(&self, name: &str) -> anyhow::Result<String> {
        match self.named_store() {
            None => Ok(format!("sqlite:{}", self.path().join(name).display())),
            Some(address) if address.starts_with("postgres") && !address.contains("schema=") => {
                // Before the `@` a question mark is a part of the password.
                let behind = address.split_once('@').map_or(address, |(_, behind)| behind);
                let joined_by = if behind.contains('?') { '&' } else { '?' };
                // A new name, because a schema that an earlier run left would contain its jobs.
                Ok(format!("{address}{joined_by}schema=wharf_bench_{name}_{:x}", fastrand::u32(..)))
            }
            Some(_) => {
                let text = "--store: this benchmark needs several stores; leave it out for temporary SQLite files, or name a \
                            database as postgres://… without a schema: each store creates one, wharf_bench_…, and leaves it";
                Err(CliError::usage(text).into())
            }
        }
    }
}
