//! The numbers of hosts in job ids: each has one owner at a time, and no id is made twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use wharf_core::ids::{JobId, NodeId};
use wharf_store::{Clock, NodeRegistry as _, OpenError, PostgresStore, Queue as _, StoreError};

use crate::proxy::Proxy;
use crate::server::Postgres;
use crate::stage::{HandClock, SECOND, block_on};

/// Longer than an ownership, which is five minutes.
const EXPIRED: Duration = Duration::from_secs(301);
const HOUR: Duration = Duration::from_secs(3600);

/// A server, with a schema that the hosts of one test share.
struct Shared {
    server: Postgres,
    address: String,
    clock: Arc<HandClock>,
}

impl Shared {
    fn new() -> Shared {
        let server = Postgres::start(false);
        let clock = HandClock::new();
        // Ids follow the clock from 2020 on.
        clock.pass(7 * 365 * 24 * HOUR);
        Shared { address: server.address(), server, clock }
    }

    async fn open(&self) -> Result<PostgresStore, OpenError> {
        PostgresStore::open_with_clock(&self.address, self.clock.clone()).await
    }

    fn sql(&self, text: &str) -> String {
        let schema = self.address.split_once("schema=").expect("it names one").1;
        self.server.sql(&text.replace("wharf.", &format!("{schema}.")))
    }

    /// Makes this number the next one to be given out, if no host owns it.
    fn set_next(&self, number: u64) {
        self.sql(&format!("SELECT setval('wharf.last_id_source', {})", (number + 1023) % 1024));
    }
}

fn number(id: JobId) -> u64 {
    id.number() % 1024
}

fn draw(store: &PostgresStore, count: usize) -> Vec<JobId> {
    (0..count).map(|_| store.next_id().expect("it owns its number")).collect()
}

/// Waits until a host owns a number again: it acquires one by itself.
async fn next_id_again(store: &PostgresStore) -> JobId {
    let acquired = async {
        loop {
            if let Ok(id) = store.next_id() {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(60 * SECOND, acquired).await.expect("it owns a number again")
}

#[test]
fn a_number_has_one_owner() {
    block_on(async {
        let shared = Shared::new();
        let first = shared.open().await.unwrap();
        let mut hosts = vec![first];
        let mut ids = BTreeSet::new();
        for _ in 0..8 {
            // The next number is one that another host owns, and once the one after the last.
            shared.set_next(number(hosts[hosts.len() - 1].next_id().unwrap()));
            hosts.push(shared.open().await.unwrap());
            shared.set_next(0);
            hosts.push(shared.open().await.unwrap());
        }
        let numbers: BTreeSet<u64> = hosts.iter().map(|host| number(host.next_id().unwrap())).collect();
        assert_eq!(numbers.len(), hosts.len());
        for host in &hosts {
            ids.extend(draw(host, 500));
        }
        assert_eq!(ids.len(), 500 * hosts.len());
    });
}

#[test]
fn a_host_that_was_disconnected_for_too_long_makes_no_ids_before_it_owns_a_number_again() {
    block_on(async {
        let shared = Shared::new();
        let way = Proxy::before(shared.server.dir(), &shared.address);
        let away = PostgresStore::open_with_clock(way.address(), shared.clock.clone()).await.unwrap();
        let before = draw(&away, 5000);
        let own = number(before[0]);
        way.hold(true);
        shared.clock.pass(EXPIRED);
        let refused = away.next_id().unwrap_err();
        assert!(matches!(&refused, StoreError::Busy(why) if why.contains("job ids")), "{refused}");

        shared.set_next(own);
        let successor = shared.open().await.unwrap();
        let inherited = draw(&successor, 5000);
        assert_eq!(number(inherited[0]), own, "the number was free");
        assert!(inherited[0] > before[4999], "it continues after the other one");
        away.next_id().expect_err("it owns none");
        way.hold(false);
        let id = next_id_again(&away).await;
        assert!(number(id) != own && id > before[4999], "{id}");
        assert!(draw(&successor, 10)[0] > inherited[4999], "the new owner continues");
    });
}

#[test]
fn a_number_that_is_given_back_repeats_no_id_also_when_the_clock_is_set_back() {
    block_on(async {
        let shared = Shared::new();
        let mut last: Option<JobId> = None;
        for _ in 0..4 {
            let host = shared.open().await.unwrap();
            // None of these is enqueued, so no table contains them.
            let ids = draw(&host, 10_000);
            assert!(ids.is_sorted_by(|a, b| a < b) && last.is_none_or(|last| last < ids[0]));
            last = ids.last().copied();
            host.deregister(NodeId(7)).await.unwrap();
            host.next_id().expect_err("it released its number");
            shared.set_next(number(ids[0]));
            shared.clock.set_back(HOUR);
        }
        let host = shared.open().await.unwrap();
        assert_eq!(host.next_id().ok().map(number), last.map(number), "the number stayed the same");
    });
}

#[test]
fn a_host_whose_database_clock_is_set_back_keeps_its_number() {
    block_on(async {
        let shared = Shared::new();
        let host = shared.open().await.unwrap();
        let before = draw(&host, 100);
        shared.clock.set_back(HOUR);
        let after = draw(&host, 10_000);
        assert!(after[0] > before[99] && number(after[0]) == number(before[0]));
        // An ownership that now ends far in the future does not block its number for that long: it is the last choice, and free.
        shared.sql(&format!(
            "UPDATE wharf.id_sources SET owned_until = {}",
            shared.clock.now().as_micros() + 3_600_000_000
        ));
        shared.open().await.unwrap().next_id().expect("it got a number");
    });
}

#[test]
fn when_all_numbers_are_owned_the_next_host_reports_it_and_may_start_later() {
    block_on(async {
        let shared = Shared::new();
        drop(shared.open().await.unwrap());
        shared.sql(&format!("UPDATE wharf.id_sources SET owned_until = {}", shared.clock.now().as_micros() + 1));
        let refused = shared.open().await.unwrap_err();
        assert!(
            matches!(&refused, OpenError::AwaitDatabase { reason, .. } if reason.contains("1024 hosts")),
            "{refused}"
        );
        shared.sql("UPDATE wharf.id_sources SET owned_until = 0 WHERE number = 77");
        assert_eq!(number(shared.open().await.unwrap().next_id().unwrap()), 77);
    });
}
