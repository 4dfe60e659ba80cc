//! A pooler that uses another session for each transaction.

use std::sync::Arc;

use wharf_store::{PostgresStore, Store};

use crate::pgbouncer::Pooler;
use crate::server::Postgres;
use crate::stage::{COUNT, HandClock, Kind, Stage, at_most, block_on, run_side_by_side};

#[test]
fn limits_hold_and_nothing_is_lost_behind_a_pooler() {
    let server = Postgres::start(false);
    let pooler = Pooler::before(&server);
    block_on(async {
        let clock = HandClock::new();
        let mut stages = Vec::new();
        // Two of them do not listen, as their addresses say; the others detect the pooler.
        for listen in ["yes", "yes", "no", "no"] {
            let address = format!("{}&listen={listen}", pooler.address());
            let store: Arc<dyn Store> =
                Arc::new(PostgresStore::open_with_clock(&address, clock.clone()).await.unwrap());
            stages.push(
                Stage { store, clock: clock.clone(), ..Stage::new(Kind::Memory).await }
                    .limit(COUNT, at_most(1, Some(3))),
            );
        }
        let keys = ["a", "b", "c", "d", "e"];
        let adding = stages.iter().flat_map(|stage| keys.map(|key| stage.add_many(COUNT, key, 15)));
        futures_util::future::join_all(adding).await;
        run_side_by_side(&stages, 300).await;
        assert!(stages[0].claim(4).await.is_empty(), "each ran once");
    });
}
