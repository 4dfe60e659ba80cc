//! Holds: which jobs they keep waiting, and when these start again.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::hold::{Hold, HoldLength, HoldReason, HoldScope, NewHold};
use wharf_core::ids::JobId;
use wharf_core::job::{Due, NewJob, WaitReason};
use wharf_core::limits::Limits;
use wharf_store::{HoldPage, PostgresStore};

use crate::server::{Postgres, shared_address};
use crate::stage::{COUNT, LIST, MAKE, SECOND, Stage, at_most, block_on, failed, group, ids, on_every_store, task};

fn scope(text: &str) -> HoldScope {
    text.parse().unwrap()
}

fn new_hold(text: &str, length: Option<Duration>) -> NewHold {
    NewHold {
        scope: scope(text),
        length: length.map(HoldLength::For),
        reason: "the upstream is down".parse().unwrap(),
        by: Author::token("ann"),
    }
}

async fn hold(stage: &Stage, text: &str, length: Option<Duration>) -> Hold {
    stage.store.set_hold(new_hold(text, length)).await.unwrap().expect("there are few holds")
}

async fn release(stage: &Stage, text: &str) -> bool {
    stage.store.release_hold(scope(text), Author::anyone()).await.unwrap().is_some()
}

/// Returns the scope of the hold that a job waits for.
async fn held_by(stage: &Stage, id: JobId) -> Option<String> {
    match stage.seen(id).await.why {
        Some(WaitReason::Held(hold)) => Some(hold.scope.to_string()),
        _ => None,
    }
}

fn texts(page: &HoldPage) -> Vec<String> {
    page.holds.iter().map(|hold| hold.scope.to_string()).collect()
}

#[test]
fn each_scope_holds_its_jobs_until_it_is_released() {
    on_every_store(|stage| async move {
        let of_count = format!("group:{COUNT} key:a");
        for held in ["all", "plugin:words", "task:words/count", "group:words/count", "key:a", &of_count] {
            let (a, b) = (stage.add(COUNT, "a").await, stage.add(MAKE, "b").await);
            let set = hold(&stage, held, None).await;
            let others = if held == "all" { vec![] } else { vec![b] };
            assert_eq!(ids(&stage.claim(9).await), others, "{held}");
            assert_eq!(stage.seen(a).await.why, Some(WaitReason::Held(Box::new(set))), "{held}");
            let late = stage.add(COUNT, "a").await;
            assert!(stage.claim(9).await.is_empty(), "{held} does not hold a job that came later");
            assert!(release(&stage, held).await);
            assert_eq!(held_by(&stage, a).await, None);
            let mut started = ids(&stage.claim(9).await);
            started.retain(|id| *id != b);
            assert_eq!(started, [a, late], "{held} was released");
            assert!(!release(&stage, held).await, "it is no longer there");
        }
    });
}

#[test]
fn a_hold_on_a_key_is_on_all_its_groups_or_on_one() {
    on_every_store(|stage| async move {
        let [a, b, other] = [stage.add(COUNT, "a").await, stage.add(MAKE, "a").await, stage.add(MAKE, "other").await];
        hold(&stage, "key:a", None).await;
        assert_eq!(ids(&stage.claim(9).await), [other]);
        hold(&stage, &format!("group:{MAKE} key:a"), None).await;
        assert!(release(&stage, "key:a").await);
        assert_eq!(ids(&stage.claim(9).await), [a]);
        assert_eq!(held_by(&stage, b).await, Some(format!("group:{MAKE} key:a")));
        let without_key = stage.add(MAKE, "").await;
        assert_eq!(ids(&stage.claim(9).await), [without_key]);
    });
}

#[test]
fn what_runs_goes_on_and_its_end_does_not_open_a_held_lane() {
    on_every_store(|stage| async move {
        let stage = stage.limit(COUNT, at_most(1, None));
        let jobs = stage.add_many(COUNT, "a", 3).await;
        let running = stage.claim_one().await;
        assert!(stage.claim(9).await.is_empty(), "the lane is full, and closed for it");
        hold(&stage, "key:a", None).await;
        stage.succeed(&running).await.unwrap();
        assert!(stage.claim(9).await.is_empty());
        assert_eq!(held_by(&stage, jobs[1]).await.as_deref(), Some("key:a"));
        assert!(release(&stage, "key:a").await);
        assert_eq!(ids(&stage.claim(9).await), [jobs[1]], "the limit still applies");
    });
}

#[test]
fn a_hold_ends_by_the_clock_of_the_store_without_anybodys_help() {
    on_every_store(|stage| async move {
        for held in ["all", "task:words/count", "group:words/count", "key:a"] {
            let id = stage.add(COUNT, "a").await;
            let end = hold(&stage, held, Some(10 * SECOND)).await.until;
            assert_eq!(end, Some(stage.store.now() + 10 * SECOND));
            let claimed = stage.claim_whole(9).await;
            assert_eq!((claimed.leased.len(), claimed.wake_at), (0, end), "{held}: the claim says when to come again");
            stage.pass(10 * SECOND - Duration::from_micros(1));
            assert!(stage.claim(9).await.is_empty(), "{held} still holds");
            stage.pass(Duration::from_micros(1));
            assert_eq!(held_by(&stage, id).await, None);
            let claimed = stage.claim_whole(9).await;
            assert_eq!((ids(&claimed.leased), claimed.wake_at), (vec![id], None), "{held} has ended");
        }
    });
}

#[test]
fn a_hold_that_was_deleted_before_any_claim_after_its_end_leaves_no_lane_closed() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "a").await;
        hold(&stage, "key:a", Some(SECOND)).await;
        hold(&stage, "key:b", Some(2 * SECOND)).await;
        assert!(stage.claim(9).await.is_empty());
        assert_eq!(stage.store.delete_ended_holds(9).await.unwrap(), 0);
        stage.pass(SECOND);
        assert_eq!(stage.store.delete_ended_holds(9).await.unwrap(), 1);
        assert_eq!(ids(&stage.claim(9).await), [id]);
    });
}

#[test]
fn a_hold_replaces_the_one_of_its_scope_also_by_a_shorter_one() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "a").await;
        hold(&stage, "key:a", None).await;
        assert!(stage.claim(9).await.is_empty());
        hold(&stage, "key:a", Some(SECOND)).await;
        assert!(stage.claim(9).await.is_empty());
        assert_eq!(stage.store.holds(None, 9).await.unwrap().holds.len(), 1);
        stage.pass(SECOND);
        assert_eq!(ids(&stage.claim(9).await), [id]);
        // And by a longer one, after the first has ended.
        let id = stage.add(COUNT, "a").await;
        hold(&stage, "key:a", None).await;
        stage.pass(SECOND);
        assert!(stage.claim(9).await.is_empty());
        assert_eq!(held_by(&stage, id).await.as_deref(), Some("key:a"));
    });
}

#[test]
fn a_job_starts_when_its_last_hold_ends() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "a").await;
        for (held, length) in
            [("key:a", Some(SECOND)), ("group:words/count", Some(3 * SECOND)), ("all", Some(2 * SECOND))]
        {
            hold(&stage, held, length).await;
        }
        for _ in 0..3 {
            assert_eq!(held_by(&stage, id).await.as_deref(), Some("group:words/count"));
            assert!(stage.claim(9).await.is_empty());
            stage.pass(SECOND);
        }
        assert_eq!(ids(&stage.claim(9).await), [id]);
    });
}

#[test]
fn a_clock_that_is_set_back_puts_an_ended_hold_in_force_again() {
    on_every_store(|stage| async move {
        hold(&stage, "key:a", Some(10 * SECOND)).await;
        stage.pass(10 * SECOND);
        stage.add(COUNT, "a").await;
        assert_eq!(stage.claim(9).await.len(), 1);
        stage.clock.set_back(5 * SECOND);
        let id = stage.add(COUNT, "a").await;
        assert!(stage.claim(9).await.is_empty());
        assert_eq!(held_by(&stage, id).await.as_deref(), Some("key:a"));
        stage.pass(5 * SECOND);
        assert_eq!(ids(&stage.claim(9).await), [id]);
    });
}

/// A lane keeps the group under which its jobs were enqueued, even if its task has moved to another one since.
#[test]
fn a_hold_on_a_group_holds_its_jobs_whatever_the_group_of_their_task_is_now() {
    on_every_store(|stage| async move {
        let before = stage.add(COUNT, "a").await;
        let stage = stage.sharing("shared");
        let after = stage.add(COUNT, "a").await;
        hold(&stage, "group:words/count", None).await;
        assert_eq!(ids(&stage.claim(9).await), [after]);
        assert_eq!(held_by(&stage, before).await.as_deref(), Some("group:words/count"));
        assert!(release(&stage, "group:words/count").await);
        assert_eq!(ids(&stage.claim(9).await), [before]);
    });
}

#[test]
fn another_task_that_joins_a_held_lane_waits_too() {
    on_every_store(|stage| async move {
        let stage = stage.sharing("shared");
        let first = stage.add(COUNT, "a").await;
        hold(&stage, "group:shared key:a", Some(SECOND)).await;
        assert!(stage.claim(9).await.is_empty());
        let second = stage.add(LIST, "a").await;
        assert!(stage.claim(9).await.is_empty());
        stage.pass(SECOND);
        assert_eq!(ids(&stage.claim(9).await), [first, second]);
        // A held task leaves its lane to the others.
        let (first, second) = (stage.add(COUNT, "b").await, stage.add(LIST, "b").await);
        hold(&stage, "task:words/count", None).await;
        assert_eq!(ids(&stage.claim(9).await), [second]);
        assert!(release(&stage, "task:words/count").await);
        assert_eq!(ids(&stage.claim(9).await), [first]);
    });
}

#[test]
fn a_delayed_and_a_failed_job_wait_for_the_hold_after_their_own_time() {
    on_every_store(|stage| async move {
        let until = stage.clock_in(1);
        let delayed = NewJob { due: Some(Due::At(until)), ..stage.new_job(COUNT, "a") };
        stage.insert(delayed.clone()).await;
        let retried = stage.add(COUNT, "b").await;
        let attempt = stage.claim_one().await.lease.attempt;
        stage.record(retried, failed(attempt, Some(SECOND))).await.unwrap();
        hold(&stage, "plugin:words", None).await;
        for id in [delayed.id, retried] {
            assert!(matches!(stage.seen(id).await.why, Some(WaitReason::NotDue { .. })));
        }
        stage.pass(SECOND);
        assert!(stage.claim(9).await.is_empty());
        for id in [delayed.id, retried] {
            assert_eq!(held_by(&stage, id).await.as_deref(), Some("plugin:words"));
        }
        assert!(release(&stage, "plugin:words").await);
        assert_eq!(stage.claim(9).await.len(), 2);
    });
}

#[test]
fn held_lanes_hold_up_no_others_however_many_there_are() {
    on_every_store(|stage| async move {
        for number in 0..30 {
            let key = format!("held {number}");
            stage.add_many(COUNT, &key, 2).await;
            hold(&stage, &format!("key:{key}"), None).await;
        }
        let others = stage.add_many(COUNT, "free", 3).await;
        for id in &others {
            assert_eq!(ids(&stage.claim(1).await), [*id]);
        }
        assert!(stage.claim(100).await.is_empty());
        // A limit that changes opens all lanes: the held ones are closed again.
        let change = wharf_core::limits::Override { group: group(COUNT), key: None, limits: at_most(1, None) };
        stage.store.set_override(change.clone(), Author::anyone()).await.unwrap();
        assert!(stage.claim(100).await.is_empty());
        stage
            .store
            .set_override(wharf_core::limits::Override { limits: Limits::default(), ..change }, Author::anyone())
            .await
            .unwrap();
        assert!(stage.claim(100).await.is_empty());
        assert!(release(&stage, "key:held 7").await);
        assert_eq!(stage.claim(100).await.len(), 2);
    });
}

#[test]
fn holds_are_listed_in_pages_and_found_by_their_scopes() {
    on_every_store(|stage| async move {
        let scopes = ["all", "group:g", "group:g key:é \"b\"", "key:a", "plugin:words", "task:words/count"];
        for text in scopes.iter().rev() {
            hold(&stage, text, None).await;
        }
        let ended = hold(&stage, "key:ended", Some(Duration::ZERO)).await;
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = stage.store.holds(after, 4).await.unwrap();
            assert!(page.holds.len() <= 4);
            listed.extend(texts(&page));
            after = page.holds.last().map(|hold| hold.scope.clone());
            if !page.more {
                break;
            }
        }
        assert_eq!(listed, scopes, "in the order of their texts, without the one that has ended");
        let wanted = ["key:a", "key:none", "key:ended", "all"].map(scope);
        let mut found = stage.store.holds_of(wanted.to_vec()).await.unwrap();
        found.sort_by(|a, b| a.scope.cmp(&b.scope));
        let since = stage.store.now();
        let expected = |text| new_hold(text, None).set_at(since);
        assert_eq!(found, [expected("all"), expected("key:a")], "with reason, author and time");
        assert_eq!(stage.store.release_hold(ended.scope, Author::anyone()).await.unwrap(), None, "it was not in force");
    });
}

#[test]
fn a_hold_without_reason_and_author_reads_as_it_was_set() {
    on_every_store(|stage| async move {
        let new = NewHold { scope: scope("all"), length: None, reason: HoldReason::default(), by: Author::anyone() };
        let set = stage.store.set_hold(new).await.unwrap().unwrap();
        assert_eq!(stage.store.holds(None, 1).await.unwrap().holds, [set]);
    });
}

#[test]
fn a_hold_nudges_those_who_wait() {
    on_every_store(|stage| async move {
        let mut nudges = stage.store.nudges();
        for _ in 0..2 {
            nudges.mark_unchanged();
            hold(&stage, "all", None).await;
            nudges.changed().await.unwrap();
            nudges.mark_unchanged();
            assert!(release(&stage, "all").await);
            nudges.changed().await.unwrap();
        }
    });
}

/// Two hosts declare different groups, and each claims only of its own.
#[test]
fn a_hold_of_one_host_holds_the_claims_of_another() {
    block_on(async {
        let address = shared_address();
        let stage = Stage::at(&address).await;
        let other = PostgresStore::open_with_clock(&address, stage.clock.clone()).await.unwrap();
        let other = Stage {
            store: Arc::new(other),
            tasks: [(task(MAKE), group(MAKE))].into(),
            clock: stage.clock.clone(),
            declared: stage.declared.clone(),
            folder: stage.folder.clone(),
        };
        let (count, make) = (stage.add(COUNT, "a").await, other.add(MAKE, "a").await);
        hold(&stage, "key:a", Some(SECOND)).await;
        assert!(other.claim(9).await.is_empty());
        assert_eq!(held_by(&other, make).await.as_deref(), Some("key:a"));
        stage.pass(SECOND);
        // The host that deletes the hold has not closed its lanes.
        assert_eq!(stage.store.delete_ended_holds(9).await.unwrap(), 1);
        assert_eq!(ids(&other.claim(9).await), [make]);
        hold(&other, "all", None).await;
        assert!(stage.claim(9).await.is_empty());
        assert!(release(&other, "all").await);
        assert_eq!(ids(&stage.claim(9).await), [count]);
    });
}

#[test]
fn holds_of_one_transaction_are_bounded_together() {
    let server = Postgres::start(false);
    let address = server.address();
    let schema = address.split_once("schema=").unwrap().1;
    block_on(async {
        let stage = Stage::at(&address).await;
        hold(&stage, "key:first", None).await;
        let rest = bounds::HOLDS_MAX - 3;
        server.sql(&format!(
            "INSERT INTO {schema}.holds SELECT 'key:k' || n, NULL, '', NULL, 1 FROM generate_series(1, {rest}) AS n"
        ));
        // While the first one is on its way, the others come together.
        let set =
            ["key:a", "key:b", "key:first", "key:c", "key:a"].map(|text| stage.store.set_hold(new_hold(text, None)));
        let set = futures_util::future::try_join_all(set).await.unwrap();
        let is_set: Vec<bool> = set.iter().map(Option::is_some).collect();
        assert_eq!(is_set, [true, true, true, false, true], "there is room for two; the others are there");
        assert!(
            release(&stage, "key:b").await && stage.store.set_hold(new_hold("key:c", None)).await.unwrap().is_some()
        );
    });
}

#[test]
fn a_plugin_lengthens_an_operators_hold_and_leaves_the_operators_words() {
    on_every_store(|stage| async move {
        let hold = |by, length: u32, reason: &str| NewHold {
            scope: "key:acme".parse().unwrap(),
            length: Some(HoldLength::For(length * SECOND)),
            reason: reason.parse().unwrap(),
            by,
        };
        stage.store.set_hold(hold(Author::token("ann"), 10, "fraud")).await.unwrap().unwrap();
        let plugin = Author::plugin(&"pay".parse().unwrap());
        let longer = stage.store.set_hold(hold(plugin, 60, "429")).await.unwrap().unwrap();
        assert_eq!((longer.by.as_deref(), longer.reason.as_str()), (Some("ann"), "fraud (lengthened by plugin:pay)"));
        assert_eq!(longer.until, Some(stage.clock_in(60)));
        assert_eq!(stage.store.holds(None, 10).await.unwrap().holds, [longer]);
    });
}
