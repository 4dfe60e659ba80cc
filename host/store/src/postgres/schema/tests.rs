//! A newer host comes while others work: the tables are brought forward under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use wharf_core::ids::{Group, NodeId, TaskName};
use wharf_core::job::NewJob;
use wharf_core::key::Lane;
use wharf_core::lease::NodeMark;
use wharf_core::lifecycle::Event;
use wharf_core::limits::{LimitTable, OnConflict};
use wharf_core::outcome::Bill;

use self::server::Postgres;
use super::*;
use crate::postgres::PostgresStore;
use crate::store::{Claim, Store};

#[path = "../../../../../tests/harness/postgres.rs"]
#[expect(dead_code, reason = "the tests from outside do more with a server")]
mod server;

/// As a next version may have it: a column for jobs, and a table more.
const NEXT: &str = "ALTER TABLE wharf.jobs ADD COLUMN colour text;
                    CREATE TABLE wharf.colours (name text PRIMARY KEY);";

fn scripts() -> Vec<&'static str> {
    MIGRATIONS.iter().copied().chain([NEXT]).collect()
}

fn task() -> TaskName {
    "words/count".parse().unwrap()
}

async fn works(store: &PostgresStore) {
    let (task, declared) = (task(), Arc::new(LimitTable::default()));
    let jobs = (0..10).map(|_| NewJob {
        id: store.next_id().unwrap(),
        lane: Lane { group: Group::from(&task), key: None },
        task: task.clone(),
        payload: b"payload".as_slice().into(),
        priority: 0,
        due: None,
        token: None,
        on_conflict: OnConflict::Wait,
        batch: None,
    });
    store.insert(jobs.collect(), declared.clone()).await.unwrap();
    let tasks = [(task.clone(), Group::from(&task))].into();
    let claim =
        Claim { node: NodeId(1), tasks, declared, free: 10, task_quotas: Vec::new(), lease: Duration::from_secs(60) };
    let claimed = store.claim(claim).await.unwrap();
    let leases: Vec<_> = claimed.leased.iter().map(|leased| leased.lease).collect();
    store.renew(leases.clone(), Duration::from_secs(60)).await.unwrap();
    let ended = |attempt| Event::Succeeded {
        attempt,
        output: [1].into(),
        children: vec![],
        changes: None,
        bill: Bill::default(),
    };
    let events = leases.iter().map(|lease| (lease.job, ended(lease.attempt))).collect();
    for recorded in store.record(events).await.unwrap() {
        recorded.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_are_brought_forward_under_hosts_that_work() {
    let server = Postgres::start(false);
    let text = server.address();
    let address = Address::parse(&text).unwrap();
    let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut hosts = Vec::new();
    for _ in 0..2 {
        let (store, over, rounds) = (PostgresStore::open(&text).await.unwrap(), over.clone(), rounds.clone());
        hosts.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                works(&store).await;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let more = async |count: u32| {
        let until = rounds.load(Ordering::Relaxed) + count;
        while rounds.load(Ordering::Relaxed) < until && !hosts.iter().any(|host| host.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    more(20).await;
    // Several newer ones come together.
    let newer = (0..4).map(|_| async {
        let sessions = Sessions::of(&address, 2).unwrap();
        let session = sessions.session().await.unwrap();
        migrate(&session, &address.schema, &scripts()).await
    });
    let known = MIGRATIONS.len() as i64;
    let mut found: Vec<_> = futures_util::future::join_all(newer).await.into_iter().map(|one| one.unwrap().0).collect();
    found.sort_unstable();
    assert_eq!(found, [known, known + 1, known + 1, known + 1], "one of them did it");
    more(20).await;
    over.store(true, Ordering::Relaxed);
    for host in hosts {
        host.await.expect("the older ones heard of nothing");
    }
    let version = server.sql(&format!("SELECT version || ' ' || oldest FROM {}.version", address.schema));
    assert_eq!(version, format!("{} {OLDEST}", known + 1));
    let older = PostgresStore::open(&text).await.expect("an older host may be started again");
    assert_eq!(older.stats().await.unwrap().tasks, [], "all that was begun is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_the_first_release_take_in_what_hosts_write_down_of_themselves() {
    let server = Postgres::start(false);
    let text = server.address();
    let address = Address::parse(&text).unwrap();
    let session = Sessions::of(&address, 2).unwrap().session().await.unwrap();
    migrate(&session, &address.schema, &MIGRATIONS[..2]).await.unwrap();
    let store = PostgresStore::open(&text).await.unwrap();
    let mark = NodeMark { draining: true, suspect: None };
    store.set_node_mark(NodeId(1), mark).await.unwrap();
    works(&store).await;
    assert_eq!(store.reclaim(9).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_somebody_holds_are_left_to_those_who_use_them() {
    let server = Postgres::start(false);
    let text = server.address();
    let address = Address::parse(&text).unwrap();
    let store = PostgresStore::open(&text).await.unwrap();
    let sessions = Sessions::of(&address, 4).unwrap();
    // As a backup does.
    let backup = sessions.session().await.unwrap();
    backup.run("BEGIN; LOCK TABLE wharf.jobs IN ACCESS SHARE MODE").await.unwrap();
    let newer = async || {
        let session = sessions.session().await.unwrap();
        let done = migrate(&session, &address.schema, &scripts()).await;
        session.roll_back().await;
        done
    };
    // The newer one gives up before those who wait behind it do.
    let (refused, ()) = tokio::join!(newer(), works(&store));
    let refused = unopened(&refused.unwrap_err(), &address);
    let OpenError::AwaitDatabase { reason, .. } = refused else { panic!("{refused}") };
    assert!(reason.contains("busy"), "{reason}");
    works(&store).await;
    backup.run("COMMIT").await.unwrap();
    assert_eq!(newer().await.unwrap().0, MIGRATIONS.len() as i64);
    works(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_the_first_version_are_known_and_marked() {
    let server = Postgres::start(false);
    let text = server.address();
    let address = Address::parse(&text).unwrap();
    let session = Sessions::of(&address, 1).unwrap().session().await.unwrap();
    migrate(&session, &address.schema, &MIGRATIONS[..2]).await.unwrap();
    // A host of that version has jobs there, one of them far above what the clock says, and numbers were given out.
    let far = 1_i64 << 62;
    session
        .run(&format!(
            "INSERT INTO wharf.last_forgotten VALUES (1, {far}); SELECT nextval('wharf.sources') FROM generate_series(1, 41)"
        ))
        .await
        .unwrap();
    let store = PostgresStore::open(&text).await.unwrap();
    let id = store.next_id().unwrap().number();
    assert_eq!((id > far as u64, id % 1024), (true, 41), "above all that were, and the next number");
    works(&store).await;
    let said = |what: &str| server.sql(&what.replace("wharf.", &format!("{}.", address.schema)));
    assert_eq!(said("SELECT application || ' ' || layout FROM wharf.mark"), "wharf 1");
    assert_eq!(said("SELECT nextval('wharf.sources')"), "42", "hosts of the first version draw the next ones");
    let newest = MIGRATIONS.len() as i64;
    assert_eq!(migrate(&session, &address.schema, &MIGRATIONS[..2]).await.unwrap(), (newest, OLDEST), "they may go on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_holds_something_else_is_refused_and_left_as_it_is() {
    let server = Postgres::start(false);
    let text = server.address();
    let schema = Address::parse(&text).unwrap().schema;
    for tables in [
        "orders (id int)",
        "version (number int)",
        "version (version int, oldest int)",
        "mark (application text, layout int)",
    ] {
        server.sql(&format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.{tables}"));
        let refused = PostgresStore::open(&text).await.unwrap_err();
        let OpenError::MendDatabase { reason, .. } = &refused else { panic!("{refused}") };
        let table = tables.split(' ').next().unwrap();
        assert!(reason.contains(&format!("schema {schema} holds something else ({table})")), "{reason}");
        assert_eq!(server.sql(&format!("SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'")), table);
        server.sql(&format!("DROP SCHEMA {schema} CASCADE"));
    }
    // An empty one is as good as none.
    server.sql(&format!("CREATE SCHEMA {schema}"));
    works(&PostgresStore::open(&text).await.unwrap()).await;
}

/// Hosts from before they told of their tasks stand in the tables, and go on announcing themselves as they did.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_tells_of_no_tasks_stands_beside_those_that_do() {
    const ANNOUNCE: &str = "INSERT INTO wharf.nodes
        (id, name, version, started, seen, capacity, running, draining, plugins, versions, digests, topics)
        VALUES (7, 'old:7070', '0.1.0', 1, 1, 8, 0, false, '{words,summary}', '{1,1}', '{ab,cd}', '{\"a.* b\",\"\"}')
        ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, plugins = excluded.plugins";
    let server = Postgres::start(false);
    let text = server.address();
    let address = Address::parse(&text).unwrap();
    let sessions = Sessions::of(&address, 2).unwrap();
    let session = sessions.session().await.unwrap();
    let before = MIGRATIONS.iter().position(|script| script.contains("ADD COLUMN tasks")).unwrap();
    migrate(&session, &address.schema, &MIGRATIONS[..before]).await.unwrap();
    session.run(ANNOUNCE).await.unwrap();
    let store = PostgresStore::open(&text).await.unwrap();
    for _ in 0..2 {
        let nodes = store.nodes().await.unwrap();
        let carried = &nodes[0].plugins;
        assert_eq!((carried.len(), carried[0].topics.len(), carried[1].topics.len()), (2, 2, 0), "{nodes:?}");
        assert!(carried.iter().all(|carried| carried.tasks.is_none()) && nodes[0].pending.is_empty(), "{nodes:?}");
        session.run(ANNOUNCE).await.unwrap();
    }
}
