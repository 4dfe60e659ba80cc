//! The numbers by which hosts tell their job ids apart: each is one host's at a time, and no id is made twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use wharf_core::ids::{JobId, NodeId};
use wharf_store::{Clock, OpenError, PostgresStore, Store, StoreError};

use crate::proxy::Proxy;
use crate::server::Postgres;
use crate::stage::{HandClock, SECOND, block_on};

/// A hold is over after five minutes.
const OVER: Duration = Duration::from_secs(301);
const HOUR: Duration = Duration::from_secs(3600);

/// A server, and the schema of its own that hosts share there.
struct Shared {
    server: Postgres,
    address: String,
    clock: Arc<HandClock>,
}

impl Shared {
    fn new() -> Shared {
        let server = Postgres::start(false);
        let clock = HandClock::new();
        // Ids begin to grow with the clock in 2020.
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

    /// The host that is started next would be given this number, if nobody held it.
    fn turn_to(&self, number: u64) {
        self.sql(&format!("SELECT setval('wharf.sources', {})", (number + 1023) % 1024));
    }
}

fn number(id: JobId) -> u64 {
    id.number() % 1024
}

fn draw(store: &PostgresStore, count: usize) -> Vec<JobId> {
    (0..count).map(|_| store.next_id().expect("its hold is good")).collect()
}

/// Until it holds a number again: it asks for one by itself.
async fn again(store: &PostgresStore) -> JobId {
    let held = async {
        loop {
            if let Ok(id) = store.next_id() {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(60 * SECOND, held).await.expect("it holds a number again")
}

#[test]
fn a_number_that_a_host_holds_is_nobody_elses() {
    block_on(async {
        let shared = Shared::new();
        let first = shared.open().await.unwrap();
        let mut hosts = vec![first];
        let mut ids = BTreeSet::new();
        for _ in 0..8 {
            // Each is turned to a number that another one holds; and once past the last.
            shared.turn_to(number(hosts[hosts.len() - 1].next_id().unwrap()));
            hosts.push(shared.open().await.unwrap());
            shared.turn_to(0);
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
fn a_host_that_was_away_for_too_long_makes_no_ids_before_it_has_a_number_again() {
    block_on(async {
        let shared = Shared::new();
        let way = Proxy::before(shared.server.dir(), &shared.address);
        let away = PostgresStore::open_with_clock(way.address(), shared.clock.clone()).await.unwrap();
        let before = draw(&away, 5000);
        let own = number(before[0]);
        way.hold(true);
        shared.clock.pass(OVER);
        let refused = away.next_id().unwrap_err();
        assert!(matches!(&refused, StoreError::Busy(why) if why.contains("job ids")), "{refused}");

        shared.turn_to(own);
        let heir = shared.open().await.unwrap();
        let inherited = draw(&heir, 5000);
        assert_eq!(number(inherited[0]), own, "the number was free");
        assert!(inherited[0] > before[4999], "it begins where the other one ended");
        away.next_id().expect_err("it has none");
        way.hold(false);
        let id = again(&away).await;
        assert!(number(id) != own && id > before[4999], "{id}");
        assert!(draw(&heir, 10)[0] > inherited[4999], "the heir goes on");
    });
}

#[test]
fn a_number_that_is_given_back_repeats_no_id_also_when_the_clock_is_set_back() {
    block_on(async {
        let shared = Shared::new();
        let mut last: Option<JobId> = None;
        for _ in 0..4 {
            let host = shared.open().await.unwrap();
            // None of these is enqueued, so that no table tells of them.
            let ids = draw(&host, 10_000);
            assert!(ids.is_sorted_by(|a, b| a < b) && last.is_none_or(|last| last < ids[0]));
            last = ids.last().copied();
            host.deregister(NodeId(7)).await.unwrap();
            host.next_id().expect_err("it has left");
            shared.turn_to(number(ids[0]));
            shared.clock.set_back(HOUR);
        }
        let host = shared.open().await.unwrap();
        assert_eq!(host.next_id().ok().map(number), last.map(number), "it was the same number all the time");
    });
}

#[test]
fn a_host_whose_database_is_set_back_keeps_its_number_and_goes_on() {
    block_on(async {
        let shared = Shared::new();
        let host = shared.open().await.unwrap();
        let before = draw(&host, 100);
        shared.clock.set_back(HOUR);
        let after = draw(&host, 10_000);
        assert!(after[0] > before[99] && number(after[0]) == number(before[0]));
        // What it holds until a moment that is far away by now is in nobody's way for that long: the last choice, and free.
        shared
            .sql(&format!("UPDATE wharf.source_holds SET until = {}", shared.clock.now().as_micros() + 3_600_000_000));
        shared.open().await.unwrap().next_id().expect("it was given one");
    });
}

#[test]
fn when_all_numbers_are_held_the_next_host_says_so_and_may_come_later() {
    block_on(async {
        let shared = Shared::new();
        drop(shared.open().await.unwrap());
        shared.sql(&format!("UPDATE wharf.source_holds SET until = {}", shared.clock.now().as_micros() + 1));
        let refused = shared.open().await.unwrap_err();
        assert!(
            matches!(&refused, OpenError::AwaitDatabase { reason, .. } if reason.contains("1024 hosts")),
            "{refused}"
        );
        shared.sql("UPDATE wharf.source_holds SET until = 0 WHERE number = 77");
        assert_eq!(number(shared.open().await.unwrap().next_id().unwrap()), 77);
    });
}
