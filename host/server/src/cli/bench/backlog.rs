//! `wharf bench backlog`: what a claim, a record and an enqueue cost a store with few and with many waiting jobs.
//!
//! Stores of all sizes are filled first and opened anew, so that nothing of the filling is left to do, and then take
//! turns: whatever else the machine does slows all of them alike. As many jobs are enqueued as were taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{LeasedJob, NewJob};
use wharf_core::key::Lane;
use wharf_core::lifecycle::Event;
use wharf_core::limits::{LimitTable, Limits, OnConflict};
use wharf_core::outcome::Bill;
use wharf_store::{Claim, Store};

use super::super::cli_error::Ending;
use super::super::open_store;
use super::cost::{Whose, anonymous_bytes, processor};
use super::ground::{Ground, Where};
use super::report::{Report, Unit, median};

/// Jobs in one claim, in one record and in one enqueue.
const HANDFUL: u32 = 32;
/// Rounds of one store before it is the next one's turn.
const TURN: u32 = 20;
/// Jobs behind one key where there are many keys, whatever waits: the ends differ in size, and in nothing else.
const EACH: u32 = 10;
const FILLED_AT_ONCE: u32 = 10_000;
const PAYLOAD: &[u8] = br#"{"text":"the quick brown fox jumps over the lazy dog"}"#;

#[derive(Debug, Args)]
pub(crate) struct Backlog {
    #[command(flatten)]
    place: Where,
    /// How many jobs wait; the last is held against the first
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000], value_parser = clap::value_parser!(u32).range(i64::from(HANDFUL * EACH)..=100_000_000))]
    waiting: Vec<u32>,
    /// Rounds of a claim, a record and an enqueue that count; a sixth as many go before
    #[arg(long, value_name = "COUNT", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,
}

impl Backlog {
    pub(super) async fn run(self) -> anyhow::Result<Report> {
        let ground = self.place.ground()?;
        let mut report = Report::new("backlog");
        ground.tell(&mut report);
        report.with("payload_bytes", PAYLOAD.len());
        report.with("batch", HANDFUL);
        report.with("rounds", self.rounds);
        report.with("waiting", self.waiting.clone());
        report.with("many-keys", format!("{EACH} jobs behind each, one of which may run"));
        for (case, keys) in [("one-key", None), ("many-keys", Some(EACH))] {
            self.case(&ground, case, keys, &mut report).await?;
        }
        Ok(report)
    }

    async fn case(&self, ground: &Ground, case: &str, each: Option<u32>, report: &mut Report) -> anyhow::Result<()> {
        let mut stores = Vec::new();
        for waiting in &self.waiting {
            let keys = each.map_or(1, |each| waiting.div_ceil(each));
            let address = ground.another_store(&format!("{}_{waiting}", case.replace('-', "_")))?;
            let mut bench = Bench::open(&address, keys, if each.is_some() { 1 } else { HANDFUL }).await?;
            bench.fill(*waiting).await?;
            // Its log is copied back, and its cache empty.
            stores.push((address, bench.closed()));
        }
        let mut opened = Vec::new();
        for (address, closed) in stores {
            let before = anonymous_bytes(Whose::This)?;
            let mut bench = closed.open(&address).await?;
            let mut warm_up = Spent::default();
            for _ in 0..self.rounds.div_ceil(6) {
                bench.round(&mut warm_up).await?;
            }
            let memory = anonymous_bytes(Whose::This)?.saturating_sub(before);
            opened.push((bench, Spent::default(), memory));
        }
        let mut done = 0;
        while done < self.rounds {
            let turn = TURN.min(self.rounds - done);
            for (bench, spent, _) in &mut opened {
                for _ in 0..turn {
                    bench.round(spent).await?;
                }
            }
            done += turn;
        }
        let mut ends: Vec<Vec<(&str, f64)>> = Vec::new();
        for (waiting, (_, spent, memory)) in self.waiting.iter().zip(opened) {
            let mut row = Vec::new();
            for (what, times) in spent.each() {
                let jobs = f64::from(HANDFUL * self.rounds);
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
struct Bench {
    store: Arc<dyn Store>,
    jobs: Closed,
}

struct Closed {
    task: TaskName,
    declared: Arc<LimitTable>,
    keys: u32,
    next_key: u32,
}

/// What the rounds of one store took: by the clock, and on a core.
#[derive(Default)]
struct Spent {
    claims: Vec<(Duration, Duration)>,
    records: Vec<(Duration, Duration)>,
    enqueues: Vec<(Duration, Duration)>,
}

impl Spent {
    fn each(&self) -> [(&'static str, &Vec<(Duration, Duration)>); 3] {
        [("claim", &self.claims), ("record", &self.records), ("enqueue", &self.enqueues)]
    }
}

impl Closed {
    async fn open(self, address: &str) -> anyhow::Result<Bench> {
        Ok(Bench { store: open_store::store(address).await?, jobs: self })
    }

    fn new_job(&mut self, id: JobId) -> anyhow::Result<NewJob> {
        // Strides through the keys, so that neighbours in time are none in the index.
        self.next_key = (self.next_key + 7919) % self.keys;
        let key = format!("tenant-{}", self.next_key).parse().context("a key of the bench is none")?;
        Ok(NewJob {
            id,
            task: self.task.clone(),
            lane: Lane { group: Group::from(&self.task), key: Some(key) },
            payload: PAYLOAD.into(),
            priority: 0,
            due: None,
            token: None,
            on_conflict: OnConflict::Wait,
            batch: None,
        })
    }
}

impl Bench {
    async fn open(address: &str, keys: u32, per_key: u32) -> anyhow::Result<Bench> {
        let task: TaskName = "bench/noop".parse().context("the task of the bench is none")?;
        let mut declared = LimitTable::default();
        declared.declare(Group::from(&task), Limits { per_key: Some(per_key), total: None });
        Closed { task, declared: Arc::new(declared), keys, next_key: 0 }.open(address).await
    }

    fn closed(self) -> Closed {
        self.jobs
    }

    async fn enqueue(&mut self, count: u32) -> anyhow::Result<()> {
        let jobs: anyhow::Result<_> = (0..count).map(|_| self.jobs.new_job(self.store.next_id()?)).collect();
        self.store.insert(jobs?, Arc::clone(&self.jobs.declared)).await?;
        Ok(())
    }

    async fn fill(&mut self, waiting: u32) -> anyhow::Result<()> {
        for begin in (0..waiting).step_by(FILLED_AT_ONCE as usize) {
            self.enqueue((waiting - begin).min(FILLED_AT_ONCE)).await?;
        }
        Ok(())
    }

    /// A claim of a handful, the record of their ends, and as many new jobs.
    async fn round(&mut self, spent: &mut Spent) -> anyhow::Result<()> {
        let claim = Claim {
            node: NodeId(1),
            tasks: [(self.jobs.task.clone(), Group::from(&self.jobs.task))].into(),
            declared: Arc::clone(&self.jobs.declared),
            free: HANDFUL,
            task_quotas: Vec::new(),
            lease: Duration::from_secs(600),
        };
        let began = Moment::now()?;
        let leased = self.store.claim(claim).await?.leased;
        spent.claims.push(began.since()?);
        if leased.len() != HANDFUL as usize {
            bail!("a claim of {HANDFUL} jobs took {}", leased.len());
        }
        let ended = leased.iter().map(ended).collect();
        let began = Moment::now()?;
        self.store.record(ended).await?;
        spent.records.push(began.since()?);
        let began = Moment::now()?;
        self.enqueue(HANDFUL).await?;
        spent.enqueues.push(began.since()?);
        Ok(())
    }
}

fn ended(leased: &LeasedJob) -> (JobId, Event) {
    let attempt = leased.lease.attempt;
    let event =
        Event::Succeeded { attempt, output: [].into(), children: Vec::new(), changes: None, bill: Bill::default() };
    (leased.lease.job, event)
}

struct Moment(Instant, Duration);

impl Moment {
    fn now() -> anyhow::Result<Moment> {
        Ok(Moment(Instant::now(), processor(Whose::This)?))
    }

    fn since(&self) -> anyhow::Result<(Duration, Duration)> {
        Ok((self.0.elapsed(), processor(Whose::This)?.saturating_sub(self.1)))
    }
}

impl Ground {
    /// The address of one of several stores: a file each, or a schema each of one database.
    fn another_store(&self, name: &str) -> anyhow::Result<String> {
        match self.given_store() {
            None => Ok(format!("sqlite:{}", self.path().join(name).display())),
            Some(address) if address.starts_with("postgres") && !address.contains("schema=") => {
                let joined_by = if address.contains('?') { '&' } else { '?' };
                // A schema that an earlier run left would not be as full as it should be.
                Ok(format!("{address}{joined_by}schema=wharf_bench_{name}_{:x}", fastrand::u32(..)))
            }
            Some(_) => {
                let text = "--store: a backlog needs several stores; leave it out for SQLite files that go away, or name a \
                            database as postgres://… without a schema: each store makes one, wharf_bench_…, which stays";
                Err(Ending::usage(text).into())
            }
        }
    }
}
