//! Migrations while other hosts work on the tables, and schemas that are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use wharf_core::ids::{Group, NodeId, TaskName};
use wharf_core::job::NewJob;
use wharf_core::lifecycle::Event;
use wharf_core::limits::LimitTable;
use wharf_core::outcome::Usage;
use wharf_core::room::Room;

use super::*;
use crate::postgres::PostgresStore;
use crate::postgres::test_server::Postgres;
use crate::store::{Claim, Queue as _};

/// A migration that a next version may have: a column for jobs, and one more table.
const NEXT: &str = "ALTER TABLE $schema.jobs ADD COLUMN colour text;
                    CREATE TABLE $schema.colours (name text PRIMARY KEY);";

fn scripts() -> Vec<&'static str> {
    MIGRATIONS.iter().copied().chain([NEXT]).collect()
}

fn task() -> TaskName {
    "words/count".parse().unwrap()
}

async fn works(store: &PostgresStore) {
    let (task, declared) = (task(), Arc::new(LimitTable::default()));
    let jobs =
        (0..10).map(|_| NewJob::ready(store.next_id().unwrap(), task.clone(), None, b"payload".as_slice().into()));
    store.insert(jobs.collect(), declared.clone()).await.unwrap();
    let tasks = [(task.clone(), Group::from(&task))].into();
    let claim = Claim {
        node: NodeId(1),
        tasks,
        declared,
        free: 10,
        room: Room::UNLIMITED,
        costs: Arc::default(),
        task_quotas: Vec::new(),
        lease: Duration::from_secs(60),
    };
    let claimed = store.claim(claim).await.unwrap();
    let leases: Vec<_> = claimed.leased.iter().map(|leased| leased.lease).collect();
    store.renew(leases.clone(), Duration::from_secs(60)).await.unwrap();
    let ended = |attempt| Event::Succeeded {
        attempt,
        output: [1].into(),
        children: vec![],
        changes: None,
        usage: Usage::default(),
    };
    let events = leases.iter().map(|lease| (lease.job, ended(lease.attempt))).collect();
    for recorded in store.record(Arc::new(events)).await.unwrap() {
        recorded.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_migrated_while_hosts_work() {
    let server = Postgres::start(false);
    let text = server.address();
    let address = Address::parse(&text).unwrap();
    let (ended, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let mut hosts = Vec::new();
    for _ in 0..2 {
        let (store, ended, rounds) = (PostgresStore::open(&text).await.unwrap(), ended.clone(), rounds.clone());
        hosts.push(tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
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
    // Several newer hosts start together.
    let newer = (0..4).map(|_| async {
        let sessions = Sessions::new(&address, 2).unwrap();
        let session = sessions.session().await.unwrap();
        migrate(&session, &address.schema, &scripts()).await
    });
    let known = MIGRATIONS.len() as i64;
    let mut found: Vec<_> = futures_util::future::join_all(newer).await.into_iter().map(|one| one.unwrap().0).collect();
    found.sort_unstable();
    assert_eq!(found, [known, known + 1, known + 1, known + 1], "one of them migrated");
    more(20).await;
    ended.store(true, Ordering::Relaxed);
    for host in hosts {
        host.await.expect("the older hosts notice nothing");
    }
    let version = server.sql(&format!("SELECT version || ' ' || oldest FROM {}.version", address.schema));
    assert_eq!(version, format!("{} {OLDEST_VERSION}", known + 1));
    let older = PostgresStore::open(&text).await.expect("an older host may start again");
    assert_eq!(older.stats().await.unwrap().tasks, [], "all started jobs are done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_gives_up_before_the_users_of_locked_tables_do() {
    let server = Postgres::start(false);
    let text = server.address();
    let address = Address::parse(&text).unwrap();
    let store = PostgresStore::open(&text).await.unwrap();
    let sessions = Sessions::new(&address, 4).unwrap();
    // Like a backup.
    let backup = sessions.session().await.unwrap();
    backup.execute("BEGIN; LOCK TABLE $schema.jobs IN ACCESS SHARE MODE").await.unwrap();
    let newer = async || {
        let session = sessions.session().await.unwrap();
        let result = migrate(&session, &address.schema, &scripts()).await;
        session.roll_back().await;
        result
    };
    // The newer host gives up before those that wait behind it.
    let (refused, ()) = tokio::join!(newer(), works(&store));
    let refused = open_error(&refused.unwrap_err(), &address);
    let OpenError::AwaitDatabase { reason, .. } = refused else { panic!("{refused}") };
    assert!(reason.contains("busy"), "{reason}");
    works(&store).await;
    backup.execute("COMMIT").await.unwrap();
    assert_eq!(newer().await.unwrap().0, MIGRATIONS.len() as i64);
    works(&store).await;
}

/// The migrations of Wharf 0.1, in order.
const SCRIPTS_0_1: [&str; 5] = [
    include_str!("../../../tests/conformance/data/postgres-0.1/0001_jobs.sql"),
    include_str!("../../../tests/conformance/data/postgres-0.1/0002_kv.sql"),
    include_str!("../../../tests/conformance/data/postgres-0.1/0003_sources.sql"),
    include_str!("../../../tests/conformance/data/postgres-0.1/0004_marks.sql"),
    include_str!("../../../tests/conformance/data/postgres-0.1/0005_tasks.sql"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_0_1_is_refused_however_many_migrations_follow() {
    let server = Postgres::start(false);
    for count in 2..=SCRIPTS_0_1.len() {
        let text = server.address();
        let address = Address::parse(&text).unwrap();
        let schema = &address.schema;
        let scripts = SCRIPTS_0_1[..count].join(";").replace("wharf.", &format!("{schema}."));
        server.sql(&format!(
            "CREATE SCHEMA {schema}; CREATE TABLE {schema}.version (version bigint NOT NULL, oldest bigint NOT NULL);
             {scripts}; INSERT INTO {schema}.version VALUES ({count}, 1)"
        ));
        let tables = format!(
            "SELECT string_agg(relname, ' ' ORDER BY oid) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace"
        );
        let before = server.sql(&tables);
        for more in 0..=2 * SCRIPTS_0_1.len() {
            let migrations: Vec<&str> = MIGRATIONS.iter().copied().chain(std::iter::repeat_n(NEXT, more)).collect();
            let session = Sessions::new(&address, 1).unwrap().session().await.unwrap();
            let refused = migrate(&session, schema, &migrations).await.unwrap_err().to_string();
            assert!(refused.contains("written by Wharf 0.1"), "{count} scripts, {more} more migrations: {refused}");
            session.roll_back().await;
        }
        assert_eq!(server.sql(&tables), before);
        assert_eq!(server.sql(&format!("SELECT version FROM {schema}.version")), count.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_with_other_tables_is_refused_and_not_changed() {
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
        assert!(reason.contains(&format!("its schema `{schema}` holds something else ({table})")), "{reason}");
        assert_eq!(server.sql(&format!("SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'")), table);
        server.sql(&format!("DROP SCHEMA {schema} CASCADE"));
    }
    // An empty schema is used as if it did not exist.
    server.sql(&format!("CREATE SCHEMA {schema}"));
    works(&PostgresStore::open(&text).await.unwrap()).await;
}
