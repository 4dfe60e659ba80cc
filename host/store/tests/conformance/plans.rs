//! The plans of PostgreSQL's statements among many jobs: none of a search, of a claim or of what follows one reads a table.
//!
//! The server itself writes down the plan of each statement, with the rows that each step really read.

#[path = "../../benches/many_jobs/mod.rs"]
#[expect(dead_code, reason = "the benches fill more kinds of store")]
mod many_jobs;

use std::sync::Arc;
use std::time::Duration;

use many_jobs::FILTERS;
use wharf_core::bounds;
use wharf_core::find::{JobCursor, JobQuery};
use wharf_core::hold::{HoldReason, NewHold};
use wharf_store::{Clock as _, FindRequest, PostgresStore, SystemClock};

use crate::server::Postgres;
use crate::stage::{COUNT, Kind, LEASE, LIST, Stage, at_most, block_on, failed};

const JOBS: u64 = 100_000;
/// The most rows that one step of a plan may read: as many as a search or a summary looks at with one statement, and those of a few
/// claims.
const ROWS_MAX: u64 = 8192;
/// The tables that grow with the jobs, or with their keys.
const LARGE: [&str; 6] = ["jobs", "finished", "attempts", "entries", "ready", "holds"];

/// Keys that are held while the statements run: fewer than `ROWS_MAX`, since setting a hold counts them.
const HELD: u64 = 8_000;
const HOLDS: &str = "INSERT INTO wharf.holds (scope, reason, held_at) SELECT 'key:held-' || n, 'why', 1 FROM generate_series(1, $held) AS n";

/// Makes the server write down every plan of the sessions that follow.
const EXPLAIN: &str = "ALTER ROLE wharf SET session_preload_libraries = 'auto_explain';
    ALTER ROLE wharf SET auto_explain.log_min_duration = 0; ALTER ROLE wharf SET auto_explain.log_analyze = on;
    ALTER ROLE wharf SET auto_explain.log_timing = off; ALTER ROLE wharf SET auto_explain.log_nested_statements = on";

/// Returns the number behind a word of a plan, such as `rows=7`.
fn number(line: &str, word: &str) -> u64 {
    let digits = line.rsplit_once(word).map_or("", |(_, rest)| rest);
    digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// Returns what is wrong with a line of a plan.
fn wrong(line: &str) -> Option<String> {
    let is_large = |name: &&&str| line.contains(&format!(" on {name} ")) || line.contains(&format!(" on {name}_"));
    let table = LARGE.iter().find(is_large)?;
    let read = number(line, "(actual rows=") * number(line, "loops=").max(1);
    if line.contains("Seq Scan") && *table == "jobs" {
        return Some(format!("it reads the whole table: {line}"));
    }
    (read > ROWS_MAX).then(|| format!("it reads {read} rows: {line}"))
}

async fn search(stage: &Stage) {
    for (filter, order) in FILTERS {
        let query = Arc::new(JobQuery::parse(filter, SystemClock.now()).unwrap());
        let mut after = None::<JobCursor>;
        for _ in 0..3 {
            let request = FindRequest { order, after, ..FindRequest::new(query.clone(), Arc::default(), 100) };
            after = stage.store.find(request).await.unwrap().next;
            if after.is_none() {
                break;
            }
        }
    }
    stage.store.backlog(stage.declared.clone(), bounds::FIND_TIME).await.unwrap();
    stage.store.stats().await.unwrap();
}

async fn run_jobs(stage: &Stage) {
    for key in 0..30 {
        stage.add_many(COUNT, &format!("key-{key}"), 10).await;
        stage.add_many(LIST, "", 10).await;
    }
    let (by, reason) = (wharf_core::author::Author::anyone(), "why".parse::<HoldReason>().unwrap());
    for scope in ["key:key-1", "task:words/list"] {
        let (by, reason) = (by.clone(), reason.clone());
        let hold = NewHold { scope: scope.parse().unwrap(), length: None, reason, by };
        stage.store.set_hold(hold).await.unwrap();
    }
    for round in 0..10 {
        let leased = stage.claim(20).await;
        assert!(!leased.is_empty(), "jobs are claimed in round {round}");
        let leases = leased.iter().map(|leased| leased.lease).collect();
        stage.store.renew(leases, LEASE).await.unwrap();
        for (at, leased) in leased.iter().enumerate() {
            match at % 4 {
                0 => drop(stage.record(leased.lease.job, failed(leased.lease.attempt, None)).await.unwrap()),
                1 => {
                    let again = failed(leased.lease.attempt, Some(Duration::from_secs(60)));
                    stage.record(leased.lease.job, again).await.unwrap();
                }
                _ => drop(stage.succeed(leased).await.unwrap()),
            }
            stage.seen(leased.lease.job).await;
        }
        if round == 5 {
            stage.store.release_hold("task:words/list".parse().unwrap(), by.clone()).await.unwrap();
        }
    }
}

#[test]
fn no_statement_of_a_search_or_a_claim_reads_a_table_of_postgres() {
    let server = Postgres::start(false);
    let address = server.address_of("wharf", "wharf");
    let plain = address.split('?').next().unwrap().to_owned();
    block_on(async {
        drop(PostgresStore::open(&address).await.unwrap());
        many_jobs::fill_postgres(&plain, JOBS).await;
        server.sql(&HOLDS.replace("$held", &HELD.to_string()));
        server.sql(EXPLAIN);
        let store = PostgresStore::open(&address).await.unwrap();
        let stage = Stage { store: Arc::new(store), ..Stage::new(Kind::Memory).await }.limit(COUNT, at_most(1, 20));
        search(&stage).await;
        run_jobs(&stage).await;
        search(&stage).await;
    });
    let log = std::fs::read_to_string(server.dir().join("server.log")).unwrap();
    let (mut plans, mut faults, mut statement) = (0, Vec::new(), String::new());
    for line in log.lines() {
        if let Some((_, text)) = line.split_once("Query Text: ") {
            plans += 1;
            statement = text.to_owned();
        }
        if let Some(fault) = wrong(line) {
            faults.push(format!("{statement}\n    {fault}"));
        }
    }
    assert!(plans > 300, "only {plans} plans were written down");
    assert!(
        faults.is_empty(),
        "{} faults, the first ones:\n{}",
        faults.len(),
        faults[..faults.len().min(10)].join("\n")
    );
}

#[test]
fn what_reads_a_table_is_found() {
    let scan = "  ->  Seq Scan on jobs  (cost=0.00..8.00 rows=1 width=4) (actual rows=0 loops=1)";
    let index =
        "  ->  Index Scan using jobs_pkey on jobs jobs_1  (cost=0.42..8.44 rows=1 width=48) (actual rows=3 loops=5000)";
    let few = index.replace("loops=5000", "loops=500");
    assert!(wrong(scan).is_some() && wrong(index).is_some_and(|fault| fault.contains("15000")));
    assert!(wrong(&few).is_none() && wrong("  ->  Seq Scan on names  (actual rows=3 loops=1)").is_none());
}
