//! A network that fails silently: connections stay open, and no response arrives on them.

use std::time::Duration;

use wharf_core::job::StateName;
use wharf_store::{Renewed, StoreError};

use crate::proxy::Proxy;
use crate::server::Postgres;
use crate::stage::{COUNT, LEASE, Stage, block_on};

#[test]
fn a_silent_network_is_noticed_and_recovers() {
    let server = Postgres::start(false);
    block_on(async {
        let proxy = Proxy::before(server.dir(), &server.address());
        let stage = Stage::at(proxy.address()).await;
        let id = stage.add(COUNT, "a").await;
        let leased = stage.claim_one().await;
        proxy.hold(true);
        let timed_out = stage.store.renew(vec![leased.lease], LEASE).await;
        assert!(matches!(&timed_out, Err(StoreError::Busy(why)) if why.contains("no response")), "{timed_out:?}");
        let record = stage.succeed(&leased);
        let resumed = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            proxy.hold(false);
        };
        let (recorded, ()) = tokio::join!(record, resumed);
        assert_eq!(recorded.unwrap().state, StateName::Succeeded);
        let late = stage.store.renew(vec![leased.lease], LEASE).await.unwrap();
        assert_eq!(late, [Renewed::Lost(leased.lease)]);
        assert_eq!(stage.seen(id).await.job.status.attempt, 1);
    });
}

#[test]
fn a_host_that_falls_silent_in_a_transaction_blocks_others_only_briefly() {
    let server = Postgres::start(false);
    block_on(async {
        let address = server.address();
        let proxy = Proxy::before(server.dir(), &address);
        let silent = Stage::at(proxy.address()).await;
        let other = Stage::at(&address).await;
        proxy.hold_at_lock();
        let slow = async {
            let id = silent.add(COUNT, "a").await;
            assert_eq!(silent.state(id).await, StateName::Waiting);
        };
        let quick = async {
            while !proxy.is_held() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // It waits for the lock of the silent host, and gets it.
            let id = other.add(COUNT, "a").await;
            assert_eq!(other.state(id).await, StateName::Waiting);
            proxy.hold(false);
        };
        tokio::join!(slow, quick);
        assert_eq!(other.claim(10).await.len(), 2, "both jobs exist once");
    });
}
