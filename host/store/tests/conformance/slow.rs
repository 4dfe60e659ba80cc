//! Commits that take long, or hang until the server recovers: callers are told no more than is known, and nothing is lost or
//! done twice.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::job::{NewJob, StateName};
use wharf_core::limits::LimitTable;
use wharf_store::{Inserted, JobFilter, Renewed, Store, StoreError};

use crate::server::Postgres;
use crate::stage::{COUNT, LEASE, LIST, Stage, added, at_most, block_on, run_side_by_side};
use crate::valve::{Standby, Valve, cut_those_that_wait};

/// Returns the name of the schema in an address.
fn schema(address: &str) -> &str {
    address.split_once("schema=").expect("it names one").1
}

/// Polls until a condition holds, while the store continues.
async fn until(what: &str, is: impl Fn() -> bool) {
    let polls = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), polls).await.unwrap_or_else(|_| panic!("timeout: {what}"));
}

/// Inserts a job on its own task, which may hang.
fn start_insert(stage: &Stage, job: &NewJob) -> tokio::task::JoinHandle<Result<Vec<Inserted>, StoreError>> {
    let (store, job): (Arc<dyn Store>, _) = (Arc::clone(&stage.store), job.clone());
    tokio::spawn(async move { store.insert(vec![job], Arc::new(LimitTable::default())).await })
}

async fn count(stage: &Stage) -> usize {
    stage.store.jobs(JobFilter { max: 100, ..JobFilter::default() }).await.unwrap().jobs.len()
}

#[test]
fn the_status_of_a_commit_that_hung_is_queried() {
    let server = Postgres::start(false);
    block_on(async {
        let stage = Stage::at(&server.address()).await;
        stage.add(COUNT, "").await;
        stage.add(LIST, "").await;
        let leased = stage.claim(2).await;

        let standby = Standby::awaited(&server);
        let watch = async {
            until("the record hangs", || standby.waiting() == 1).await;
            // Renewals hang as well, and the lease's node gets an error in time.
            let timed_out = stage.store.renew(vec![leased[1].lease], LEASE).await;
            assert!(matches!(&timed_out, Err(StoreError::Busy(why)) if why.contains("no response")), "{timed_out:?}");
            cut_those_that_wait(&server);
        };
        let (recorded, ()) = tokio::join!(stage.succeed(&leased[0]), watch);
        assert_eq!(recorded.unwrap().state, StateName::Succeeded, "it was committed, and the response was lost");

        let job = NewJob { token: Some("one".parse().unwrap()), ..stage.new_job(COUNT, "") };
        let hangs = start_insert(&stage, &job);
        until("the insert hangs", || standby.waiting() == 1).await;
        hangs.abort();
        drop(standby);
        // The caller gave up and retries: the job exists once.
        assert_eq!(stage.insert(NewJob { id: stage.id(), ..job.clone() }).await, Inserted::Duplicate { id: job.id });
        assert_eq!(count(&stage).await, 3);
        assert_eq!(stage.claim_one().await.lease.attempt, 1);
        assert!(matches!(stage.store.renew(vec![leased[1].lease], LEASE).await.unwrap()[..], [Renewed::Renewed(_)]));
        assert_eq!(stage.succeed(&leased[1]).await.unwrap().state, StateName::Succeeded);
    });
}

#[test]
fn a_transaction_that_was_rolled_back_after_a_long_wait_is_retried() {
    let server = Postgres::start(false);
    let address = server.address();
    block_on(async {
        let stage = Stage::at(&address).await;
        let valve = Valve::before(&server, schema(&address));
        valve.hold(true);
        let job = stage.new_job(COUNT, "a");
        let hangs = start_insert(&stage, &job);
        until("the commit hangs", || valve.waiting() == 1).await;
        assert_eq!(count(&stage).await, 0, "reads work, and no job exists");
        // The server rolls it back, and the writer retries it.
        cut_those_that_wait(&server);
        until("another commit hangs", || valve.waiting() == 1).await;
        valve.hold(false);
        assert_eq!(hangs.await.unwrap().unwrap(), [added(job.id)]);
        assert_eq!(count(&stage).await, 1);
        let leased = stage.claim_one().await;
        assert_eq!((leased.lease.job, leased.lease.attempt), (job.id, 1));
    });
}

#[test]
fn limits_hold_however_long_commits_take() {
    let server = Postgres::start(false);
    let address = server.address();
    block_on(async {
        let first = Stage::at(&address).await;
        let mut stages = Vec::new();
        for _ in 0..3 {
            let clock = Arc::clone(&first.clock);
            stages.push(Stage { clock, ..Stage::at(&address).await }.limit(COUNT, at_most(1, Some(3))));
        }
        Valve::before(&server, schema(&address)).pause(Duration::from_millis(20));
        let keys = ["a", "b", "c", "d", "e"];
        let adding = stages.iter().flat_map(|stage| keys.map(|key| stage.add_many(COUNT, key, 2)));
        futures_util::future::join_all(adding).await;
        run_side_by_side(&stages, 30).await;
        assert_eq!(count(&first).await, 30);
        assert!(first.claim(4).await.is_empty(), "each ran once");
    });
}
