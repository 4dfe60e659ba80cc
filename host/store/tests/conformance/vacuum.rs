//! The space of jobs that an operation deletes is free for new ones soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::bulk::{BulkAct, NewOperation, OperationState};
use wharf_core::find::JobQuery;
use wharf_store::FindRequest;

use crate::server::Postgres;
use crate::stage::{COUNT, Stage, block_on};

/// More than a host deletes before it has the tables cleaned.
const JOBS: usize = 20_500;

/// Carries an operation out, step by step.
async fn carry_out(stage: &Stage, act: BulkAct) {
    let query = JobQuery::parse("key:a", stage.store.now()).unwrap().with_states(&act.states()).unwrap();
    let new = NewOperation::at_once(stage.id(), act, query.clone(), Author::anyone());
    let mut operation = stage.store.start_operation(new, stage.declared.clone()).await.unwrap().unwrap();
    let (query, mut after) = (Arc::new(query), None);
    while operation.state == OperationState::Running {
        let new = FindRequest::new(query.clone(), stage.declared.clone(), bounds::PAGE_MAX);
        let page = stage.store.find(FindRequest { after, ..new }).await.unwrap();
        after = page.next;
        let step = operation.step_on(&page.jobs, page.moved_on, page.next.map(|cursor| cursor.id));
        operation = stage.store.take_operation_step(step).await.unwrap().unwrap().operation;
    }
    assert_eq!((operation.state, operation.changed), (OperationState::Done, JOBS as u64));
}

#[test]
fn the_tables_are_cleaned_when_an_operation_has_deleted_many_jobs() {
    let server = Postgres::start(false);
    // The server's own cleaning would hold the table at times, and the host's passes over it then.
    server.sql("ALTER SYSTEM SET autovacuum = off");
    server.sql("SELECT pg_reload_conf()");
    let address = server.address();
    let (_, schema) = address.split_once("schema=").unwrap();
    let cleaned =
        format!("SELECT vacuum_count FROM pg_stat_all_tables WHERE schemaname = '{schema}' AND relname = 'jobs'");
    block_on(async {
        let stage = Stage::at(&address).await;
        for _ in 0..JOBS / 500 {
            stage.add_many(COUNT, "a", 500).await;
        }
        carry_out(&stage, BulkAct::Cancel).await;
        assert_eq!(server.sql(&cleaned), "0");
        carry_out(&stage, BulkAct::Delete).await;
        let started = Instant::now();
        while server.sql(&cleaned) == "0" {
            assert!(started.elapsed() < Duration::from_secs(60), "the tables are not cleaned");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}
