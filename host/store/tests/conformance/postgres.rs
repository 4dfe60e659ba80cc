//! A database that several hosts share: which starts first, tables of other versions, damaged rows.

use std::time::Duration;

use std::sync::Arc;

use wharf_core::author::Author;
use wharf_core::ids::{NodeId, PluginId, TaskName};
use wharf_core::job::{Batch, Due, Entry, NewJob, StateName, Token};
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery};
use wharf_core::lease::{NodeMark, StartedSuspect};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_core::limits::{OnConflict, Override};
use wharf_core::node::Node;
use wharf_core::node_message::{MessageBody, NodeMessage};
use wharf_core::outcome::Failure;
use wharf_core::rollcall::Answer;
use wharf_core::shared_bytes::SharedBytes;
use wharf_store::{
    Inserted, JobFilter, NodeMessages, OpenError, PostgresStore, Queue as _, Renewed, Store, StoreError,
};

use crate::server::{Postgres, shared_address};
use crate::stage::{COUNT, HandClock, Kind, LEASE, SECOND, Stage, added, at_most, block_on, failed, group, succeeded};

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
fn a_store_that_could_not_be_opened_reports_what_to_do() {
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

        let role = format!("plain_{schema}");
        client
            .batch_execute(&format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA own_{schema} AUTHORIZATION {role}"))
            .await
            .unwrap();
        let plain = |schema: String| url(&schema).replacen("//wharf", &format!("//{role}"), 1);
        a_whole_life(&Stage::at(&plain(format!("own_{schema}"))).await.limit(COUNT, at_most(1, None))).await;
        let refused = PostgresStore::open(&plain(format!("no_{schema}"))).await.unwrap_err().to_string();
        assert!(refused.contains("AUTHORIZATION"), "{refused}");
    });
}

/// The migrations of Wharf 0.1, in order.
const SCRIPTS_0_1: [&str; 5] = [
    include_str!("data/postgres-0.1/0001_jobs.sql"),
    include_str!("data/postgres-0.1/0002_kv.sql"),
    include_str!("data/postgres-0.1/0003_sources.sql"),
    include_str!("data/postgres-0.1/0004_marks.sql"),
    include_str!("data/postgres-0.1/0005_tasks.sql"),
];

/// A schema of Wharf 0.1 with a waiting job.
fn schema_of_0_1(server: &Postgres, schema: &str) {
    let scripts = SCRIPTS_0_1.join(";").replace("wharf.", &format!("{schema}."));
    server.sql(&format!(
        "CREATE SCHEMA {schema}; CREATE TABLE {schema}.version (version bigint NOT NULL, oldest bigint NOT NULL);
         {scripts}; INSERT INTO {schema}.version VALUES (5, 1);
         INSERT INTO {schema}.names (text) VALUES ('words/count'); INSERT INTO {schema}.places VALUES (1, 1);
         INSERT INTO {schema}.jobs (id, state, grp, key, task, line, priority, due, enqueued_at, bytes, payload)
             VALUES (11, 1, 1, 'a', 1, 1, 0, 1, 1, 7, 'payload');
         INSERT INTO {schema}.lines VALUES (1, 1, 'a', 1, 0, 2, NULL);
         INSERT INTO {schema}.queued VALUES (1, -1, 1, 11, 1, '{{11}}')"
    ));
}

#[test]
fn a_schema_of_0_1_is_refused_by_name_and_not_changed() {
    let server = Postgres::start(false);
    let address = server.address();
    let schema = address.split_once("schema=").unwrap().1;
    schema_of_0_1(&server, schema);
    // All rows of all tables, and the tables themselves.
    let contents = || {
        let tables = server.sql(&format!(
            "SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind IN ('r', 'S') ORDER BY 1"
        ));
        let rows = |table: &str| server.sql(&format!("SELECT * FROM {schema}.{table} ORDER BY 1"));
        tables.lines().map(|table| format!("{table}: {}\n", rows(table))).collect::<String>()
    };
    let before = contents();
    assert!(before.contains("jobs: 11|"), "{before}");
    for _ in 0..2 {
        let refused = block_on(PostgresStore::open(&address)).unwrap_err();
        assert!(matches!(refused, OpenError::MendDatabase { .. }), "{refused:?}");
        let reason = format!(
            "its schema `{schema}` was written by Wharf 0.1, whose stores this version can't read; finish its jobs with \
             Wharf 0.1, or name another schema with ?schema=NAME"
        );
        assert!(refused.to_string().ends_with(&reason), "{refused}");
    }
    assert_eq!(contents(), before);
}

#[test]
fn the_end_of_an_attempt_that_another_host_replaced_is_refused() {
    let server = Postgres::start(false);
    let address = server.address();
    let schema = address.split_once("schema=").unwrap().1;
    block_on(async {
        let stage = Stage::at(&address).await;
        let (replaced, other) = (stage.add(COUNT, "a").await, stage.add(COUNT, "b").await);
        assert_eq!(stage.claim(2).await.len(), 2);
        // The writer has both in its cache, and learns of the change when it writes their ends.
        server.sql(&format!("UPDATE {schema}.jobs SET attempt = 2 WHERE id = {}", replaced.number()));
        let recorded =
            stage.store.record(Arc::new(vec![(replaced, succeeded(1)), (other, succeeded(1))])).await.unwrap();
        assert_eq!(recorded[0], Err(Refusal::Stale));
        assert_eq!(recorded[1].as_ref().map(|recorded| recorded.state), Ok(StateName::Succeeded));
        assert_eq!(stage.state(replaced).await, StateName::Running);
    });
}

#[test]
fn a_null_or_a_type_that_wharf_never_writes_is_reported_by_table_and_column() {
    let server = Postgres::start(false);
    let address = server.address();
    let schema = address.split_once("schema=").unwrap().1;
    block_on(async {
        let stage = Stage::at(&address).await;
        let (damaged, whole) = (stage.add(COUNT, "a").await, stage.add(COUNT, "b").await);
        assert_eq!(stage.claim(2).await.len(), 2);
        server.sql(&format!("UPDATE {schema}.jobs SET node = NULL WHERE id = {}", damaged.number()));
        let names_column = |result: Result<(), StoreError>| match result {
            Err(StoreError::Broken(why)) => assert!(why.contains("column `node` of table `jobs`"), "{why}"),
            other => panic!("{other:?}"),
        };
        names_column(stage.store.job(damaged, stage.declared.clone()).await.map(drop));
        // In the writer, which reads the job for this event: it goes on with others.
        let entries = || vec![Entry::Chunk(b"one".as_slice().into())];
        let wrote = || Event::Wrote { attempt: 1, entries: entries() };
        let (broken, fine) = tokio::join!(
            stage.store.record(Arc::new(vec![(damaged, wrote())])),
            stage.store.record(Arc::new(vec![(whole, wrote())])),
        );
        names_column(broken.map(drop));
        fine.unwrap()[0].clone().unwrap();

        server.sql(&format!("ALTER TABLE {schema}.jobs ALTER COLUMN priority TYPE text"));
        let Err(StoreError::Broken(why)) = stage.store.job(whole, stage.declared.clone()).await else {
            panic!("a text was read as a number")
        };
        assert!(why.contains("column `priority` of table `jobs`"), "{why}");
    });
}

/// Runs every statement of the store, for a role that owns one schema and nothing else.
async fn a_whole_life(stage: &Stage) {
    let id = stage.add(COUNT, "a").await;
    let leased = stage.claim_one().await;
    let entries = vec![Entry::Chunk(b"one".as_slice().into())];
    stage.record(id, Event::Wrote { attempt: 1, entries }).await.unwrap();
    let renewed = stage.store.renew(vec![leased.lease], LEASE).await.unwrap();
    assert!(matches!(renewed[..], [Renewed::Renewed(_)]), "{renewed:?}");
    stage.pass(2 * LEASE);
    assert_eq!(stage.store.reclaim(10).await.unwrap(), [id]);
    assert!(stage.succeed(&leased).await.is_err(), "it is late");
    let again = stage.claim_one().await;
    let change = Override { group: group(COUNT), key: None, limits: at_most(1, None) };
    stage.store.set_override(change.clone(), Author::anyone()).await.unwrap();
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
        memory_budget: Some(1 << 30),
        draining: false,
        stopping: false,
        settings: None,
        plugins: vec![],
        pending: vec![],
    };
    stage.store.register(node, LEASE).await.unwrap();
    assert_eq!(stage.store.nodes().await.unwrap().len(), 1);
    assert_eq!(messages(stage).receive_messages(NodeId(7)).await.unwrap(), []);
    assert_eq!(stage.succeed(&again).await.unwrap().state, StateName::Succeeded);
    assert_eq!(stage.store.entries(id, 0, 10).await.unwrap().len(), 1);
    stage.pass(LEASE);
    assert_eq!(stage.delete_finished(stage.store.now(), 10).await.unwrap(), 1);
    assert_eq!(stage.store.stats().await.unwrap().tasks, []);
    every_other_statement(stage).await;
    stage.store.deregister(NodeId(7)).await.unwrap();
}

/// The statements that the life of a plain job does not run. What they do is tested elsewhere, for all stores.
async fn every_other_statement(stage: &Stage) {
    let store = &stage.store;
    let (task, token): (TaskName, Token) = (COUNT.parse().unwrap(), "one".parse().unwrap());
    let add = async |key: &str, on_conflict| {
        let job = NewJob { on_conflict, payload: vec![b'x'; 5000].into(), priority: 3, ..stage.new_job(COUNT, key) };
        stage.insert(job.clone()).await;
        job.id
    };

    // New jobs and their conflicts; a batch, a token, and a delayed job that comes due.
    let batch = Some(Batch { id: stage.id(), topic: "a.b".parse().unwrap() });
    let first = NewJob { token: Some(token.clone()), batch: batch.clone(), ..stage.new_job(COUNT, "b") };
    assert_eq!(stage.insert(first.clone()).await, added(first.id));
    let second = NewJob { id: stage.id(), ..first.clone() };
    assert_eq!(stage.insert(second).await, Inserted::Duplicate { id: first.id });
    assert_eq!(store.find_by_tokens(vec![first.unique_token().unwrap()]).await.unwrap(), [Some(first.id)]);
    let leased = stage.claim_one().await;
    assert_eq!((leased.lease.job, &leased.batch), (first.id, &batch));
    for on_conflict in [OnConflict::ReplaceWaiting, OnConflict::Discard, OnConflict::Wait, OnConflict::CancelRunning] {
        add("b", on_conflict).await;
    }
    let delayed = NewJob { due: Some(Due::In(LEASE)), ..stage.new_job(COUNT, "c") };
    stage.insert(delayed.clone()).await;
    assert!(stage.seen(delayed.id).await.why.is_some(), "it is delayed");

    // Unsuccessful ends, requests of users, and jobs of each state.
    stage.record(first.id, failed(1, Some(SECOND))).await.unwrap();
    stage.pass(2 * LEASE);
    for round in 0..20 {
        let leased = stage.claim(1).await;
        let Some(leased) = leased.first() else { break };
        let (job, attempt) = (leased.lease.job, leased.lease.attempt);
        stage.record(job, Event::CancelRequested).await.unwrap();
        assert_eq!(messages(stage).cancel_requests(leased.lease.node).await.unwrap(), [job]);
        if round % 2 == 0 {
            stage.succeed(leased).await.unwrap();
        } else {
            stage.record(job, failed(attempt, None)).await.unwrap();
            stage.record(job, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap();
            stage.record(job, Event::CancelRequested).await.unwrap();
        }
    }
    assert_eq!(stage.seen(delayed.id).await.job.status.attempt, 1, "it came due");
    let waits = add("d", OnConflict::Wait).await;
    let states =
        [StateName::Waiting, StateName::Running, StateName::Succeeded, StateName::Failed, StateName::Cancelled];
    for state in states {
        let filter = JobFilter { state: Some(state), task: Some(task.clone()), max: 100, ..JobFilter::default() };
        let page = store.jobs(filter).await.unwrap();
        assert_eq!(page.jobs.iter().any(|job| job.id == waits), state == StateName::Waiting, "{state:?}");
        assert!(page.jobs.iter().all(|job| job.status.state.name() == state), "{page:?}");
    }
    let filter = JobFilter { batch: batch.as_ref().map(|batch| batch.id), max: 10, ..JobFilter::default() };
    assert_eq!(store.jobs(filter).await.unwrap().jobs.len(), 1);
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.tasks, [(task, 1, 0)]);
    let large = stage.claim_one().await;
    assert_eq!((large.lease.job, large.payload.len()), (waits, 5000));
    stage.succeed(&large).await.unwrap();

    // Overrides, values, marks and messages.
    let change = Override { group: group(COUNT), key: None, limits: at_most(None, None) };
    store.set_override(change, Author::anyone()).await.unwrap();
    assert_eq!(store.overrides().await.unwrap(), []);
    let (plugin, key): (PluginId, KvKey) = ("words".parse().unwrap(), "total".parse().unwrap());
    for (value, usage) in [(Some(&b"12"[..]), (1, 7)), (Some(b"3"), (1, 6)), (None, (0, 0))] {
        let mut changes = KvChanges::new(plugin.clone());
        changes.put(key.clone(), value.map(SharedBytes::from)).unwrap();
        store.insert_with_changes(vec![], stage.declared.clone(), Some(Arc::new(changes))).await.unwrap();
        assert_eq!(store.value(plugin.clone(), key.clone()).await.unwrap().as_deref(), value);
        let query = KvKeyQuery { prefix: String::new(), after: None, max: 10 };
        assert_eq!(store.value_keys(plugin.clone(), query).await.unwrap().len(), usage.0 as usize);
        let (total, lengths) = store.usage(plugin.clone(), vec![key.clone()]).await.unwrap();
        assert_eq!((total.values, total.bytes, lengths[0]), (usage.0, usage.1, value.map(|value| value.len() as u64)));
    }
    let suspect = Some(StartedSuspect { job: waits, attempt: 1, alone: true });
    store.set_node_mark(NodeId(7), NodeMark { draining: true, suspect }).await.unwrap();
    let reply = |answer| MessageBody::Reply { plugin: plugin.clone(), answer };
    let call = MessageBody::Call {
        plugins: vec![plugin.clone()],
        topic: "a.b".parse().unwrap(),
        payload: b"payload".as_slice().into(),
        until: stage.store.now(),
        depth: 1,
        chain: vec![plugin.clone()],
    };
    let later = Failure::RetryAfter("later".to_owned(), SECOND);
    let bodies = [call, reply(Answer::Replied(b"yes".to_vec())), reply(Answer::Failed(later)), MessageBody::Over];
    let messages: Vec<NodeMessage> =
        bodies.map(|about| NodeMessage { from: NodeId(8), to: NodeId(7), broadcast: waits, about }).into();
    let store = self::messages(stage);
    store.send_messages(messages.clone()).await.unwrap();
    assert_eq!(store.receive_messages(NodeId(7)).await.unwrap(), messages);
}

fn messages(stage: &Stage) -> &dyn NodeMessages {
    stage.store.messages().expect("several hosts may share this store")
}

#[test]
fn a_schema_may_have_any_valid_name() {
    let server = Postgres::start(false);
    let longest = "x".repeat(57);
    for name in ["user", "order", "table", "_1", &longest] {
        eprintln!("in the schema {name}");
        let address = server.address_of("wharf", name);
        block_on(async {
            let stage = Stage::at(&address).await;
            // Another host, which must hear of the job at once.
            let other = PostgresStore::open(&address).await.unwrap();
            let mut nudges = other.nudges();
            let heard = async {
                loop {
                    stage.add(COUNT, "nudge").await;
                    nudges.mark_unchanged();
                    let changed = tokio::time::timeout(SECOND, nudges.changed());
                    if changed.await.is_ok() {
                        break;
                    }
                }
            };
            tokio::time::timeout(60 * SECOND, heard).await.expect("nudges of the other host arrive");
            drop(other);
            while let Some(leased) = stage.claim(1).await.first() {
                stage.succeed(leased).await.unwrap();
            }
            stage.pass(LEASE);
            stage.delete_finished(stage.store.now(), 1000).await.unwrap();
            a_whole_life(&stage.limit(COUNT, at_most(1, None))).await;
        });
    }
    let refused = block_on(PostgresStore::open(&server.address_of("wharf", "pg_jobs"))).unwrap_err().to_string();
    assert!(refused.contains("`schema`"), "{refused}");
}

#[test]
fn a_database_that_lacks_characters_is_refused_at_the_start() {
    let server = Postgres::start(false);
    for (encoding, database) in [("LATIN1", "latin"), ("SQL_ASCII", "ascii")] {
        server.sql(&format!("CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"));
        let address = server.address_of("wharf", "jobs").replace("/postgres?", &format!("/{database}?"));
        let refused = block_on(PostgresStore::open(&address)).unwrap_err();
        assert!(matches!(refused, OpenError::MendDatabase { .. }), "{refused:?}");
        let text = refused.to_string();
        let how = "CREATE DATABASE wharf ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0";
        assert!(text.contains(&format!("its encoding is {encoding}")) && text.contains(how), "{text}");
    }
    server.sql("CREATE DATABASE wharf ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0");
    let address = server.address_of("wharf", "jobs").replace("/postgres?", "/wharf?");
    block_on(async {
        let stage = Stage::at(&address).await;
        let id = stage.add(COUNT, "größe 日本 👩\u{200d}🔬").await;
        assert_eq!(stage.claim_one().await.lease.job, id);
    });
}

#[test]
fn a_value_that_the_server_refuses_fails_its_request_and_no_other() {
    let server = Postgres::start(false);
    let address = server.address();
    let schema = address.split_once("schema=").unwrap().1;
    block_on(async {
        let stage = Stage::at(&address).await;
        for (code, key) in [("22021", "data"), ("54000", "limit")] {
            server.sql(&format!(
                "CREATE FUNCTION {schema}.refuse_{key}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF new.key = '{key}' THEN RAISE SQLSTATE '{code}' USING MESSAGE = 'no room for it'; END IF;
                     RETURN new;
                 END $$;
                 CREATE TRIGGER refuse_{key} BEFORE INSERT ON {schema}.jobs FOR EACH ROW EXECUTE FUNCTION {schema}.refuse_{key}()"
            ));
            let add = |key| stage.store.insert(vec![stage.new_job(COUNT, key)], stage.declared.clone());
            let (refused, fine) = tokio::join!(add(key), add("fine"));
            assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.contains("no room for it")), "{refused:?}");
            fine.unwrap();
        }
    });
}
