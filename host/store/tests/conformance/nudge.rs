//! Nudges: waiting callers are told to poll again.

use wharf_core::author::Author;
use wharf_core::lifecycle::Event;
use wharf_core::limits::Override;

use crate::stage::{COUNT, LEASE, at_most, group, on_every_store};

#[test]
fn every_change_that_a_caller_may_wait_for_nudges() {
    on_every_store(|stage| async move {
        let mut nudges = stage.store.nudges();
        assert!(!nudges.has_changed().unwrap());
        let id = stage.add(COUNT, "").await;
        nudges.changed().await.unwrap();
        stage.claim_one().await;
        nudges.changed().await.unwrap();
        stage.record(id, Event::CancelRequested).await.unwrap();
        nudges.changed().await.unwrap();
        stage.pass(LEASE);
        stage.store.reclaim(1).await.unwrap();
        nudges.changed().await.unwrap();
        let change = Override { group: group(COUNT), key: None, limits: at_most(1, None) };
        stage.store.set_override(change, Author::anyone()).await.unwrap();
        nudges.changed().await.unwrap();
    });
}

#[test]
fn a_claim_that_found_nothing_does_not_nudge() {
    on_every_store(|stage| async move {
        let nudges = stage.store.nudges();
        stage.claim(5).await;
        stage.store.reclaim(5).await.unwrap();
        stage.store.renew(vec![], LEASE).await.unwrap();
        stage.delete_finished(stage.store.now(), 5).await.unwrap();
        assert!(!nudges.has_changed().unwrap(), "a dispatcher that its own claims nudge would never rest");
    });
}
