//! What only a database that several share can get wrong: who comes first, what a newer host left, a lost answer.

use std::sync::Arc;

use wharf_core::ids::NodeId;
use wharf_core::job::{Entry, StateName};
use wharf_core::lifecycle::Event;
use wharf_core::limits::Override;
use wharf_core::node::Node;
use wharf_store::{OpenError, PostgresStore, Renewed, Store};

use crate::server::shared_address;
use crate::stage::{COUNT, HandClock, Kind, LEASE, Stage, at_most, block_on, group};

#[test]
fn hosts_that_start_together_make_the_tables_once() {
    block_on(async {
        let address = shared_address();
        let open = || PostgresStore::open_with_clock(&address, HandClock::new());
        let (a, b, c, d) = tokio::join!(open(), open(), open(), open());
        let mut ids = Vec::new();
        for store in [a.unwrap(), b.unwrap(), c.unwrap(), d.unwrap()] {
            ids.extend((0..100).map(|_| store.next_id().unwrap()));
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 400, "no two of them make the same id");
    });
}

#[test]
fn a_limit_of_one_is_one_for_all_nodes() {
    block_on(async {
        let address = shared_address();
        let clock = HandClock::new();
        let mut stages = Vec::new();
        for _ in 0..4 {
            let store: Arc<dyn Store> =
                Arc::new(PostgresStore::open_with_clock(&address, clock.clone()).await.unwrap());
            stages.push(
                Stage { store, clock: clock.clone(), ..Stage::new(Kind::Memory).await }
                    .limit(COUNT, at_most(1, Some(3))),
            );
        }
        for key in ["a", "b", "c", "d", "e"] {
            stages[0].add_many(COUNT, key, 20).await;
        }
        let mut done = 0;
        while done < 100 {
            let claims = stages.iter().map(|stage| stage.claim(4));
            let leased: Vec<_> = futures_util::future::join_all(claims).await.into_iter().flatten().collect();
            assert!(leased.len() <= 3, "the group is over its total");
            let mut lanes: Vec<_> = leased.iter().map(|leased| &leased.lane).collect();
            lanes.sort();
            lanes.dedup();
            assert_eq!(lanes.len(), leased.len(), "a key is over its limit");
            done += leased.len();
            let ends = leased.iter().zip(stages.iter().cycle()).map(|(leased, stage)| stage.succeed(leased));
            futures_util::future::join_all(ends).await.into_iter().for_each(|end| _ = end.unwrap());
        }
    });
}

#[test]
fn what_cannot_be_opened_says_what_to_do() {
    block_on(async {
        let address = shared_address();
        drop(PostgresStore::open(&address).await.unwrap());
        let (base, schema) = address.split_once("schema=").unwrap();
        let url = |schema: &str| format!("{base}schema={schema}");
        let (client, connection) =
            tokio_postgres::connect(base.trim_end_matches(['?', '&']), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(&format!("UPDATE {schema}.version SET version = 99, oldest = 99")).await.unwrap();
        let newer = PostgresStore::open(&address).await.unwrap_err();
        assert!(matches!(newer, OpenError::TakeNewerHost { found: 99, .. }), "{newer}");
        let early =
            format!("UPDATE {schema}.version SET version = 1, oldest = 1; DROP TABLE {schema}.queued, {schema}.mark");
        client.batch_execute(&early).await.unwrap();
        let early = PostgresStore::open(&address).await.unwrap_err().to_string();
        assert!(early.contains("before the first release") && early.contains("DROP SCHEMA"), "{early}");

        let role = format!("plain_{schema}");
        client
            .batch_execute(&format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA own_{schema} AUTHORIZATION {role}"))
            .await
            .unwrap();
        let plain = |schema: String| url(&schema).replacen("//wharf", &format!("//{role}"), 1);
        a_whole_life(&Stage::at(&plain(format!("own_{schema}"))).await).await;
        let refused = PostgresStore::open(&plain(format!("no_{schema}"))).await.unwrap_err().to_string();
        assert!(refused.contains("AUTHORIZATION"), "{refused}");
    });
}

/// Everything that a host does with its store, on the one whose role has a schema of its own and nothing else.
async fn a_whole_life(stage: &Stage) {
    let id = stage.add(COUNT, "a").await;
    let leased = stage.claim_one().await;
    let entries = vec![Entry::Chunk(b"one".as_slice().into())];
    stage.record(id, Event::Wrote { attempt: 1, entries }).await.unwrap();
    let renewed = stage.store.renew(vec![leased.lease], LEASE).await.unwrap();
    assert!(matches!(renewed[..], [Renewed::Held(_)]), "{renewed:?}");
    stage.pass(2 * LEASE);
    assert_eq!(stage.store.reclaim(10).await.unwrap(), [id]);
    assert!(stage.succeed(&leased).await.is_err(), "it is late");
    let again = stage.claim_one().await;
    let change = Override { group: group(COUNT), key: None, limits: at_most(1, None) };
    stage.store.set_override(change.clone()).await.unwrap();
    assert_eq!(stage.store.overrides().await.unwrap(), [change]);
    let here = stage.store.now();
    let node = Node {
        id: NodeId(7),
        name: "here".to_owned(),
        version: "0".to_owned(),
        started: here,
        seen: here,
        capacity: 1,
        running: 1,
        draining: false,
        plugins: vec![],
        pending: vec![],
    };
    stage.store.register(node, LEASE).await.unwrap();
    assert_eq!(stage.store.nodes().await.unwrap().len(), 1);
    assert_eq!(stage.store.receive_messages(NodeId(7)).await.unwrap(), Some(vec![]));
    assert_eq!(stage.succeed(&again).await.unwrap().state, StateName::Succeeded);
    assert_eq!(stage.store.entries(id, 0, 10).await.unwrap().len(), 1);
    stage.pass(LEASE);
    assert_eq!(stage.store.delete_finished(stage.store.now(), 10).await.unwrap(), 1);
    assert_eq!(stage.store.stats().await.unwrap().tasks, []);
    stage.store.deregister(NodeId(7)).await.unwrap();
}
