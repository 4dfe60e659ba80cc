//! The response to a commit is lost: its changes are neither written twice nor treated as lost.

use std::sync::Arc;

use wharf_core::job::{Entry, StateName};
use wharf_core::lifecycle::Event;
use wharf_store::PostgresStore;

use crate::proxy::Proxy;
use crate::server::Postgres;
use crate::stage::{COUNT, Kind, Stage, block_on};

#[test]
fn the_status_of_a_commit_without_a_response_is_queried() {
    let server = Postgres::start(false);
    block_on(async {
        let proxy = Proxy::before(server.dir(), &server.address());
        let stage = Stage::new(Kind::Memory).await;
        let store = PostgresStore::open_with_clock(proxy.address(), stage.clock.clone()).await.unwrap();
        let stage = Stage { store: Arc::new(store), ..stage };
        let lose_next = || proxy.lose_next_commit();
        let assert_lost = || assert!(proxy.has_lost(), "a response was lost");

        lose_next();
        let id = stage.add(COUNT, "").await;
        assert_lost();
        lose_next();
        let leased = stage.claim_one().await;
        assert_lost();
        assert_eq!((leased.lease.job, leased.lease.attempt), (id, 1));
        lose_next();
        let entries = vec![Entry::Chunk(b"one".as_slice().into()), Entry::Chunk(b"two".as_slice().into())];
        stage.record(id, Event::Wrote { attempt: 1, entries }).await.unwrap();
        assert_lost();
        assert_eq!(stage.store.entries(id, 0, 10).await.unwrap().len(), 2, "nothing is written twice");
        lose_next();
        assert_eq!(stage.succeed(&leased).await.unwrap().state, StateName::Succeeded);
        assert_lost();
        let seen = stage.seen(id).await;
        assert_eq!((seen.job.status.attempt, seen.entries), (1, 2));
    });
}
