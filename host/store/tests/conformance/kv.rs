//! The values of plugins: written with the success of an attempt or not at all, separate for each plugin, and counted.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::PluginId;
use wharf_core::job::{LeasedJob, StateName};
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery, KvUsage};
use wharf_core::lifecycle::{Event, Refusal};
use wharf_store::{PostgresStore, Store};

use crate::server::Postgres;
use crate::stage::{COUNT, Kind, LEASE, LIST, Stage, added, failed, on_every_store, usage};

const WORDS: &str = "words";
const OTHER: &str = "thumbnail";

fn plugin(name: &str) -> PluginId {
    name.parse().unwrap()
}

fn key(name: &str) -> KvKey {
    name.parse().unwrap()
}

fn changes(of: &str, what: &[(&str, Option<&[u8]>)]) -> Arc<KvChanges> {
    let mut changes = KvChanges::new(plugin(of));
    for (name, value) in what {
        changes.put(key(name), value.map(Into::into)).unwrap();
    }
    Arc::new(changes)
}

fn keeping(attempt: u32, changes: &Arc<KvChanges>) -> Event {
    let changes = Some(Arc::clone(changes));
    Event::Succeeded { attempt, output: b"result".as_slice().into(), children: vec![], changes, usage: usage() }
}

impl Stage {
    async fn value(&self, of: &str, name: &str) -> Option<Vec<u8>> {
        self.store.value(plugin(of), key(name)).await.unwrap()
    }

    async fn keys(&self, of: &str, prefix: &str, after: Option<&str>, max: u32) -> Vec<String> {
        let wanted = KvKeyQuery { prefix: prefix.to_owned(), after: after.map(str::to_owned), max };
        let keys = self.store.value_keys(plugin(of), wanted).await.unwrap();
        keys.iter().map(|key| key.as_str().to_owned()).collect()
    }

    async fn usage(&self, of: &str) -> (u64, u64) {
        let KvUsage { values, bytes } = self.store.usage(plugin(of), vec![]).await.unwrap().0;
        (values, bytes)
    }

    /// Runs a job that succeeds with these changes.
    async fn keep(&self, changes: &Arc<KvChanges>) {
        self.add(COUNT, "").await;
        let leased = self.claim_one().await;
        self.record(leased.lease.job, keeping(leased.lease.attempt, changes)).await.unwrap();
    }

    async fn running(&self) -> LeasedJob {
        self.add(COUNT, "").await;
        self.claim_one().await
    }
}

#[test]
fn values_are_written_with_success_and_each_plugin_has_its_own() {
    on_every_store(|stage| async move {
        assert_eq!((stage.value(WORDS, "a").await, stage.usage(WORDS).await), (None, (0, 0)));
        stage.keep(&changes(WORDS, &[("a", Some(b"1")), ("b", Some(b""))])).await;
        stage.keep(&changes(OTHER, &[("a", Some(b"other"))])).await;
        assert_eq!(stage.value(WORDS, "a").await.unwrap(), b"1");
        assert_eq!(stage.value(WORDS, "b").await.unwrap(), b"", "an empty value is one");
        assert_eq!(stage.value(OTHER, "a").await.unwrap(), b"other");
        assert_eq!((stage.value(OTHER, "b").await, stage.value("nobody", "a").await), (None, None));
        assert_eq!((stage.usage(WORDS).await, stage.usage(OTHER).await), ((2, 3), (1, 6)));
        let lengths = stage.store.usage(plugin(WORDS), ["b", "c", "a"].map(key).to_vec()).await.unwrap().1;
        assert_eq!(lengths, [Some(0), None, Some(1)]);
    });
}

#[test]
fn changes_replace_and_delete_values_and_usage_is_counted() {
    on_every_store(|stage| async move {
        stage.keep(&changes(WORDS, &[("a", Some(b"12345")), ("bb", Some(b"1")), ("c", Some(b"x"))])).await;
        stage.keep(&changes(WORDS, &[("a", Some(b"1")), ("bb", None), ("absent", None)])).await;
        assert_eq!(stage.keys(WORDS, "", None, 9).await, ["a", "c"]);
        assert_eq!(stage.usage(WORDS).await, (2, 4));
        // Two changes of one key in one call: the later one applies.
        let (first, second) = (stage.running().await, stage.running().await);
        let one = keeping(1, &changes(WORDS, &[("a", Some(b"first")), ("d", Some(b"first"))]));
        let two = keeping(1, &changes(WORDS, &[("a", Some(b"second, and longer")), ("d", None)]));
        let both = vec![(first.lease.job, one), (second.lease.job, two)];
        assert!(stage.store.record(Arc::new(both)).await.unwrap().iter().all(Result::is_ok));
        assert_eq!(stage.value(WORDS, "a").await.unwrap(), b"second, and longer");
        assert_eq!((stage.value(WORDS, "d").await, stage.usage(WORDS).await), (None, (2, 21)));
        stage.keep(&changes(WORDS, &[("a", None), ("c", None)])).await;
        assert_eq!(stage.usage(WORDS).await, (0, 0));
    });
}

#[test]
fn keys_are_listed_in_pages_in_the_order_of_their_bytes() {
    on_every_store(|stage| async move {
        let names = ["a", "a/", "a/1", "a/10", "a/2", "a/é", "a/\u{10ffff}", "a0", "b", "\0", "É"];
        let all: Vec<(&str, Option<&[u8]>)> = names.iter().map(|name| (*name, Some(b"x".as_slice()))).collect();
        stage.keep(&changes(WORDS, &all)).await;
        stage.keep(&changes(OTHER, &[("a/3", Some(b"not its own"))])).await;
        assert_eq!(stage.keys(WORDS, "a/", None, 99).await, ["a/", "a/1", "a/10", "a/2", "a/é", "a/\u{10ffff}"]);
        assert_eq!(stage.keys(WORDS, "a/", None, 2).await, ["a/", "a/1"]);
        assert_eq!(stage.keys(WORDS, "a/", Some("a/1"), 2).await, ["a/10", "a/2"]);
        assert_eq!(stage.keys(WORDS, "a/", Some("a/\u{10ffff}"), 2).await, Vec::<String>::new());
        assert_eq!(stage.keys(WORDS, "\u{10ffff}", None, 9).await, Vec::<String>::new());
        let mut sorted = names.map(str::to_owned).to_vec();
        sorted.sort();
        assert_eq!(stage.keys(WORDS, "", None, 99).await, sorted);
    });
}

/// River and pg-boss: the completion of an earlier attempt, here with something to write.
#[test]
fn an_attempt_that_lost_its_job_changes_no_value() {
    on_every_store(|stage| async move {
        let late = changes(WORDS, &[("a", Some(b"late"))]);
        let first = stage.running().await;
        let job = first.lease.job;
        stage.pass(LEASE);
        stage.store.reclaim(1).await.unwrap();
        assert_eq!(stage.record(job, keeping(1, &late)).await, Err(Refusal::Stale), "while it waits");
        let second = stage.claim_one().await;
        assert_eq!(stage.record(job, keeping(1, &late)).await, Err(Refusal::Stale), "while another attempt runs");
        assert_eq!((stage.value(WORDS, "a").await, stage.usage(WORDS).await), (None, (0, 0)));
        let now = changes(WORDS, &[("a", Some(b"now"))]);
        stage.record(job, keeping(second.lease.attempt, &now)).await.unwrap();
        assert_eq!(stage.record(job, keeping(1, &late)).await, Err(Refusal::Stale), "after its end");
        assert_eq!(
            stage.record(job, keeping(2, &late)).await,
            Err(Refusal::Stale),
            "and not twice by the same attempt"
        );
        assert_eq!(stage.value(WORDS, "a").await.unwrap(), b"now");
    });
}

#[test]
fn children_and_values_are_written_together() {
    on_every_store(|stage| async move {
        let (child, values) = (stage.new_job(LIST, ""), changes(WORDS, &[("a", Some(b"1"))]));
        let leased = stage.running().await;
        let end = |attempt| Event::Succeeded {
            attempt,
            output: [].into(),
            children: vec![child.clone()],
            changes: Some(values.clone()),
            usage: usage(),
        };
        assert_eq!(stage.record(leased.lease.job, end(2)).await, Err(Refusal::Stale));
        assert_eq!(stage.store.job(child.id, stage.declared.clone()).await.unwrap(), None);
        assert_eq!(stage.usage(WORDS).await, (0, 0));
        let recorded = stage.record(leased.lease.job, end(1)).await.unwrap();
        assert_eq!((recorded.state, recorded.children), (StateName::Succeeded, vec![added(child.id)]));
        assert_eq!((stage.state(child.id).await, stage.usage(WORDS).await), (StateName::Waiting, (1, 2)));
    });
}

#[test]
fn a_failed_attempt_changes_no_value() {
    on_every_store(|stage| async move {
        stage.keep(&changes(WORDS, &[("a", Some(b"before"))])).await;
        let job = stage.running().await.lease.job;
        stage.record(job, failed(1, Some(Duration::ZERO))).await.unwrap();
        assert_eq!(stage.value(WORDS, "a").await.unwrap(), b"before");
        let again = stage.claim_one().await;
        assert_eq!((again.lease.job, again.lease.attempt), (job, 2));
        stage.record(job, keeping(2, &changes(WORDS, &[("a", None)]))).await.unwrap();
        assert_eq!(stage.usage(WORDS).await, (0, 0));
    });
}

#[test]
fn values_outlive_the_jobs_that_wrote_them() {
    on_every_store(|stage| async move {
        stage.keep(&changes(WORDS, &[("a", Some(b"1"))])).await;
        stage.pass(LEASE);
        assert_eq!(stage.delete_finished(stage.store.now(), 10).await.unwrap(), 1);
        assert_eq!(stage.value(WORDS, "a").await.unwrap(), b"1");
    });
}

#[test]
fn jobs_and_values_without_a_parent_are_written_at_once() {
    on_every_store(|stage| async move {
        let child = stage.new_job(LIST, "");
        let changes = changes(WORDS, &[("a", Some(b"1"))]);
        let left =
            stage.store.insert_with_changes(vec![child.clone()], stage.declared.clone(), Some(changes.clone())).await;
        assert_eq!(left.unwrap(), [added(child.id)]);
        assert_eq!(stage.store.insert_with_changes(vec![], stage.declared.clone(), Some(changes)).await.unwrap(), []);
        assert_eq!((stage.state(child.id).await, stage.usage(WORDS).await), (StateName::Waiting, (1, 2)));
    });
}

#[test]
fn the_largest_changes_are_written_and_read_back() {
    on_every_store(|stage| async move {
        let large: Vec<u8> = (0..bounds::KV_VALUE_BYTES_MAX).map(|n| (n % 251) as u8).collect();
        let long = "k".repeat(bounds::KV_KEY_BYTES_MAX);
        stage.keep(&changes(WORDS, &[(&long, Some(&large)), ("z", Some(&large))])).await;
        assert!(stage.value(WORDS, &long).await.unwrap() == large);
        let names: Vec<String> = (0..bounds::KV_WRITES_MAX).map(|number| format!("many/{number:04}")).collect();
        let many: Vec<(&str, Option<&[u8]>)> = names.iter().map(|name| (name.as_str(), Some(b"".as_slice()))).collect();
        stage.keep(&changes(WORDS, &many)).await;
        assert_eq!(stage.keys(WORDS, "many/", None, bounds::KV_PAGE_MAX).await, names);
        assert_eq!(stage.usage(WORDS).await.0, 2 + names.len() as u64);
        let none: Vec<(&str, Option<&[u8]>)> = names.iter().map(|name| (name.as_str(), None)).collect();
        stage.keep(&changes(WORDS, &none)).await;
        let large = bounds::KV_VALUE_BYTES_MAX;
        assert_eq!(stage.usage(WORDS).await, (2, 2 * large + 1 + bounds::KV_KEY_BYTES_MAX as u64));
    });
}

async fn open(address: &str) -> Arc<dyn Store> {
    Arc::new(PostgresStore::open(address).await.unwrap())
}

/// Hosts that share a database change the same values at once, in groups that name plugins in another order.
#[test]
fn hosts_that_change_the_same_values_at_once_lose_nothing_and_count_right() {
    let server = Postgres::start(false);
    let address = server.address();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let mut hosts = Vec::new();
        for _ in 0..3 {
            hosts.push(open(&address).await);
        }
        let writes = (0..300usize).map(|number| {
            let store = hosts[number % hosts.len()].clone();
            let of = if number % 2 == 0 { WORDS } else { OTHER };
            let (own, value) = (format!("own/{number}"), vec![b'x'; number % 7]);
            let shared = if number % 3 == 0 { None } else { Some(value.as_slice()) };
            let changes = changes(of, &[(&own, Some(&value)), ("shared", shared)]);
            tokio::spawn(async move { store.insert_with_changes(vec![], Arc::default(), Some(changes)).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.unwrap().unwrap();
        }
        let stage = Stage { store: hosts[0].clone(), ..Stage::new(Kind::Memory).await };
        for of in [WORDS, OTHER] {
            let keys = stage.keys(of, "", None, 1000).await;
            assert_eq!(keys.iter().filter(|key| key.starts_with("own/")).count(), 150);
            let mut bytes = 0;
            for key in &keys {
                bytes += (key.len() + stage.value(of, key).await.unwrap().len()) as u64;
            }
            assert_eq!(stage.usage(of).await, (keys.len() as u64, bytes));
        }
    });
}
