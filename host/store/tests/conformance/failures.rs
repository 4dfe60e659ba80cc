//! Failure groups: jobs that fail for one cause are counted together, and what comes back after it was resolved is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use wharf_core::attempt::AttemptOrigin;
use wharf_core::audit::ActKind;
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::failure::{FailureDetails, FailureState, FailureStateChange};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::job::StateName;
use wharf_core::lease::{NodeMark, StartedSuspect, is_suspect};
use wharf_core::lifecycle::Event;
use wharf_core::node::{LoadedPlugin, Node};
use wharf_core::outcome::{OutcomeKind, Report};
use wharf_store::{ActFilter, FailureCursor, FailureFilter, PostgresStore, Recorded};

use crate::server::shared_address;
use crate::stage::{COUNT, LEASE, LIST, MAKE, SECOND, Stage, block_on, on_every_store, usage};

fn fails(attempt: u32, text: &str, digest: Option<&str>, retry_in: Option<Duration>) -> Event {
    let report = Report { kind: OutcomeKind::Failed, text: text.to_owned() };
    let origin = digest.map(|digest| Arc::new(AttemptOrigin::new("here", &format!("of {digest}"), digest)));
    Event::Failed { attempt, report, retry_in, usage: usage(), origin }
}

/// A node that has loaded these digests of a plugin.
fn node(stage: &Stage, plugin: &str, digests: &[&str]) -> Node {
    let loaded = |digest: &&str| LoadedPlugin {
        plugin: plugin.parse().unwrap(),
        version: format!("of {digest}"),
        digest: (*digest).to_owned(),
        topics: vec![],
        tasks: None,
    };
    Node {
        id: NodeId(7),
        name: "here".to_owned(),
        version: "0.2.0".to_owned(),
        started: stage.store.now(),
        seen: stage.store.now(),
        capacity: 1,
        running: 0,
        draining: false,
        stopping: false,
        settings: None,
        memory_budget: None,
        plugins: digests.iter().map(loaded).collect(),
        pending: vec![],
    }
}

impl Stage {
    /// Has a new job fail for good, with the text of its report.
    async fn fail(&self, task: &str, key: &str, text: &str, digest: Option<&str>) -> (JobId, Recorded) {
        let id = self.add(task, key).await;
        assert_eq!(self.claim_one().await.lease.job, id);
        (id, self.record(id, fails(1, text, digest, None)).await.unwrap())
    }

    async fn fingerprint(&self, id: JobId) -> Fingerprint {
        self.seen(id).await.job.fingerprint.expect("the job failed")
    }

    async fn details(&self, fingerprint: Fingerprint) -> FailureDetails {
        self.store.failure_details(fingerprint).await.unwrap().expect("the group exists")
    }

    /// Returns the fingerprints of all groups, the one that failed last first.
    async fn groups(&self) -> Vec<Fingerprint> {
        let page = self.store.failures(FailureFilter { max: 1000, ..FailureFilter::default() }).await.unwrap();
        page.groups.iter().map(|group| group.fingerprint).collect()
    }

    async fn loads(&self, digests: &[&str]) {
        self.store.register(node(self, "words", digests), LEASE).await.unwrap();
    }
}

#[test]
fn jobs_that_fail_for_one_cause_are_one_group_and_others_are_others() {
    on_every_store(|stage| async move {
        let first = stage.store.now();
        let (a, _) = stage.fail(COUNT, "acme", "no order 17\nof acme", Some("d1")).await;
        stage.pass(SECOND);
        let (b, _) = stage.fail(COUNT, "beta", "no order 4711", Some("d2")).await;
        stage.pass(SECOND);
        let (c, _) = stage.fail(COUNT, "beta", "no customer 17", Some("d2")).await;
        let (d, _) = stage.fail(LIST, "", "no order 17", None).await;
        let group = stage.fingerprint(a).await;
        assert_eq!(stage.fingerprint(b).await, group);
        let all: BTreeSet<Fingerprint> = [group, stage.fingerprint(c).await, stage.fingerprint(d).await].into();
        assert_eq!(all.len(), 3);
        assert_eq!(stage.groups().await.into_iter().collect::<BTreeSet<_>>(), all);

        let details = stage.details(group).await;
        assert_eq!((details.group.task.as_str(), details.group.outcome), (COUNT, OutcomeKind::Failed));
        assert_eq!((details.group.message.as_str(), details.group.count, details.group.keys), ("no order #", 2, 2));
        assert_eq!((details.group.first_seen, details.group.last_seen), (first, first + SECOND));
        assert_eq!((details.group.state, details.group.changed), (FailureState::Open, None));
        let versions: Vec<_> =
            details.versions.iter().map(|v| (&*v.digest, &*v.version, v.count, v.first_seen)).collect();
        assert_eq!(versions, [("d2", "of d2", 1, first + SECOND), ("d1", "of d1", 1, first)]);
        let samples: Vec<_> = details.samples.iter().map(|sample| (sample.job, &*sample.message)).collect();
        assert_eq!(samples, [(b, "no order 4711"), (a, "no order 17")]);
        assert_eq!(stage.details(stage.fingerprint(d).await).await.versions, []);
    });
}

#[test]
fn an_attempt_has_a_fingerprint_when_it_fails_and_its_job_once_it_fails_for_good() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.claim_one().await;
        stage.record(id, fails(1, "no order 17", None, Some(Duration::ZERO))).await.unwrap();
        assert_eq!((stage.seen(id).await.job.fingerprint, stage.groups().await), (None, vec![]));
        stage.claim_one().await;
        stage.record(id, fails(2, "no order 18", None, None)).await.unwrap();
        let group = stage.fingerprint(id).await;
        let attempts = stage.store.attempts(id).await.unwrap();
        assert_eq!(attempts.iter().map(|attempt| attempt.fingerprint).collect::<Vec<_>>(), [Some(group), Some(group)]);
        // A retry takes the job out; its failure has happened all the same.
        stage.record(id, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }).await.unwrap();
        assert_eq!(stage.seen(id).await.job.fingerprint, None);
        stage.claim_one().await;
        stage.record(id, fails(3, "no order 19", None, None)).await.unwrap();
        let details = stage.details(group).await;
        assert_eq!((details.group.count, details.samples.len()), (2, 1));
        assert_eq!(details.samples[0].message, "no order 19");
        // What ends otherwise has none.
        let cancelled = stage.add(COUNT, "").await;
        stage.claim_one().await;
        stage.record(cancelled, Event::Cancelled { attempt: 1, usage: usage(), origin: None }).await.unwrap();
        assert_eq!(stage.seen(cancelled).await.job.fingerprint, None);
        assert_eq!(stage.store.attempts(cancelled).await.unwrap()[0].fingerprint, None);
    });
}

#[test]
fn a_job_that_kills_its_hosts_is_a_failure_of_no_known_version() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        for crashes in 0..bounds::CRASHES_MAX {
            let lease = stage.claim_one().await.lease;
            if is_suspect(crashes) {
                let suspect = StartedSuspect { job: id, attempt: lease.attempt, alone: true };
                let mark = NodeMark { draining: false, suspect: Some(suspect) };
                stage.store.set_node_mark(lease.node, mark).await.unwrap();
            }
            stage.pass(LEASE);
            stage.store.reclaim(10).await.unwrap();
        }
        assert_eq!(stage.state(id).await, StateName::Failed);
        let details = stage.details(stage.fingerprint(id).await).await;
        assert_eq!((details.group.outcome, details.group.count), (OutcomeKind::Interrupted, 1));
        assert_eq!((details.versions, details.samples.len()), (vec![], 1));
    });
}

#[test]
fn what_comes_back_with_a_newer_digest_is_told_and_an_upgrade_under_way_is_not() {
    on_every_store(|stage| async move {
        let text = "no order 17";
        stage.loads(&["d1", "d2"]).await;
        stage.pass(SECOND);
        let (id, first) = stage.fail(COUNT, "", text, Some("d1")).await;
        assert_eq!(first.regressed, None);
        let group = stage.fingerprint(id).await;
        let (resolved, ann) = (FailureState::Resolved, Author::token("ann").at_address("10.0.0.1"));
        let set = stage.store.set_failure_state(group, resolved, ann.clone()).await.unwrap().unwrap();
        let by = ann.name().map(str::to_owned);
        assert_eq!((set.state, set.changed), (resolved, Some(FailureStateChange { at: stage.store.now(), by })));
        let acts = stage.store.acts(ActFilter { max: 10, ..ActFilter::default() }).await.unwrap().acts;
        let act = acts.first().unwrap();
        assert_eq!((act.kind, &act.author, act.id.at), (ActKind::FailureResolved, &ann, stage.store.now()));
        assert_eq!((&*act.target, acts.len()), (&*group.to_string(), 1));
        stage.pass(SECOND);
        // Both were loaded before the resolve; of a host that is gone nobody knows.
        for known in [Some("d1"), Some("d2"), None] {
            assert_eq!(stage.fail(COUNT, "", text, known).await.1.regressed, None, "{known:?}");
        }
        assert_eq!((stage.details(group).await.group.state, stage.details(group).await.group.count), (resolved, 4));
        stage.loads(&["d2", "d3"]).await;
        stage.pass(SECOND);
        assert_eq!(stage.fail(COUNT, "", text, Some("d3")).await.1.regressed, Some(group));
        let back = stage.details(group).await.group;
        assert_eq!((back.state, back.regressed), (FailureState::Open, Some(stage.store.now())));
        assert_eq!(stage.fail(COUNT, "", text, Some("d3")).await.1.regressed, None, "it is told once");

        // A digest that fails before its node has announced it is new all the same.
        stage.store.set_failure_state(group, resolved, Author::anyone()).await.unwrap();
        stage.pass(SECOND);
        assert_eq!(stage.fail(COUNT, "", text, Some("d4")).await.1.regressed, Some(group));
        // One that is announced again later stays as old as it is.
        stage.store.set_failure_state(group, resolved, Author::anyone()).await.unwrap();
        stage.pass(SECOND);
        stage.loads(&["d1", "d4"]).await;
        assert_eq!(stage.fail(COUNT, "", text, Some("d4")).await.1.regressed, None);

        stage.store.set_failure_state(group, FailureState::Ignored, Author::anyone()).await.unwrap();
        stage.pass(SECOND);
        assert_eq!(stage.fail(COUNT, "", text, Some("d5")).await.1.regressed, None);
        assert_eq!(stage.details(group).await.group.state, FailureState::Ignored);
    });
}

#[test]
fn a_regression_is_told_and_none_is_invented_though_the_clock_is_set_back() {
    on_every_store(|stage| async move {
        let (text, ahead) = ("no order 17", 100 * SECOND);
        stage.pass(ahead);
        stage.loads(&["d1"]).await;
        let (id, _) = stage.fail(COUNT, "", text, Some("d1")).await;
        let group = stage.fingerprint(id).await;
        stage.clock.set_back(ahead);
        // The digest was there when the group was resolved, though later by the clock of that time.
        stage.store.set_failure_state(group, FailureState::Resolved, Author::anyone()).await.unwrap().unwrap();
        assert_eq!(stage.fail(COUNT, "", text, Some("d1")).await.1.regressed, None);
        stage.pass(SECOND);
        stage.loads(&["d2"]).await;
        assert_eq!(stage.fail(COUNT, "", text, Some("d2")).await.1.regressed, Some(group));
        // And of a digest that no node has announced.
        stage.store.set_failure_state(group, FailureState::Resolved, Author::anyone()).await.unwrap().unwrap();
        assert_eq!(stage.fail(COUNT, "", text, Some("d3")).await.1.regressed, Some(group));
    });
}

#[test]
fn a_group_that_does_not_exist_has_no_state() {
    on_every_store(|stage| async move {
        let nobody: Fingerprint = "f1:0000000000000001".parse().unwrap();
        assert_eq!(stage.store.set_failure_state(nobody, FailureState::Ignored, Author::anyone()).await.unwrap(), None);
        assert_eq!(stage.store.failure_details(nobody).await.unwrap(), None);
        assert_eq!(
            stage.store.acts(ActFilter { max: 10, ..ActFilter::default() }).await.unwrap().acts,
            [],
            "nothing was changed"
        );
    });
}

#[test]
fn groups_are_listed_page_by_page_the_last_to_fail_first() {
    on_every_store(|stage| async move {
        let mut expected = Vec::new();
        for (task, text) in [(COUNT, "a"), (LIST, "a"), (COUNT, "b"), (COUNT, "c"), (MAKE, "a")] {
            let (id, _) = stage.fail(task, "", text, None).await;
            expected.insert(0, stage.fingerprint(id).await);
            stage.pass(SECOND);
        }
        stage.store.set_failure_state(expected[1], FailureState::Ignored, Author::anyone()).await.unwrap();
        assert_eq!(stage.groups().await, expected);
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = stage.store.failures(FailureFilter { after, max: 2, ..FailureFilter::default() }).await.unwrap();
            after = page.groups.last().map(FailureCursor::of);
            seen.extend(page.groups.iter().map(|group| group.fingerprint));
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, expected);
        let of = async |state, task: Option<&str>| {
            let task = task.map(|task| task.parse().unwrap());
            let page = stage.store.failures(FailureFilter { state, task, after: None, max: 10 }).await.unwrap();
            page.groups.iter().map(|group| group.fingerprint).collect::<Vec<_>>()
        };
        assert_eq!(of(None, Some(COUNT)).await, [expected[1], expected[2], expected[4]]);
        assert_eq!(of(Some(FailureState::Ignored), None).await, [expected[1]]);
        assert_eq!(of(Some(FailureState::Open), Some(COUNT)).await, [expected[2], expected[4]]);
    });
}

#[test]
fn a_group_keeps_few_samples_and_versions_and_counts_a_bounded_number_of_keys() {
    on_every_store(|stage| async move {
        let jobs = bounds::FAILURE_KEYS_MAX as usize + 3;
        let mut ids = Vec::new();
        for first in (0..jobs).step_by(250) {
            let new = (first..jobs.min(first + 250)).map(|number| stage.new_job(COUNT, &format!("k{number}")));
            stage.store.insert(new.collect(), stage.declared.clone()).await.unwrap();
            let leased = stage.claim(250).await;
            let digest = format!("d{}", first / 10);
            let end = |job| (job, fails(1, "no order 17", Some(&digest), None));
            ids.extend(leased.iter().map(|leased| leased.lease.job));
            let events = leased.iter().map(|leased| end(leased.lease.job)).collect();
            stage.store.record(Arc::new(events)).await.unwrap();
            stage.pass(SECOND);
        }
        let group = stage.fingerprint(ids[0]).await;
        for number in 0..bounds::FAILURE_VERSIONS_MAX {
            stage.fail(COUNT, "k0", "no order 17", Some(&format!("later {number}"))).await;
            stage.pass(SECOND);
        }
        let details = stage.details(group).await;
        assert_eq!(details.group.count, jobs as u64 + u64::from(bounds::FAILURE_VERSIONS_MAX));
        assert_eq!(details.group.keys, bounds::FAILURE_KEYS_MAX);
        assert_eq!(details.samples.len(), bounds::FAILURE_SAMPLES_MAX as usize);
        assert_eq!(details.versions.len(), bounds::FAILURE_VERSIONS_MAX as usize);
        assert!(details.versions.iter().all(|version| version.digest.starts_with("later")), "{:?}", details.versions);
    });
}

#[test]
fn a_task_keeps_the_groups_that_failed_last() {
    on_every_store(|stage| async move {
        let (other, _) = stage.fail(LIST, "", "of another task", None).await;
        let other = stage.fingerprint(other).await;
        let letters = |number: u32| {
            format!("bug {}{}", char::from(b'a' + (number / 26) as u8), char::from(b'a' + (number % 26) as u8))
        };
        let mut groups = Vec::new();
        for number in 0..bounds::FAILURE_GROUPS_MAX + 2 {
            let (id, _) = stage.fail(COUNT, "", &letters(number), None).await;
            groups.push(stage.fingerprint(id).await);
            stage.pass(SECOND);
            if number == 10 {
                // The oldest fails once more, so that the next is the first to go.
                stage.fail(COUNT, "", &letters(0), None).await;
                stage.pass(SECOND);
            }
        }
        let kept: BTreeSet<Fingerprint> = stage.groups().await.into_iter().collect();
        assert_eq!(kept.len(), bounds::FAILURE_GROUPS_MAX as usize + 1);
        assert!(kept.contains(&other) && kept.contains(&groups[0]));
        assert!(!kept.contains(&groups[1]) && !kept.contains(&groups[2]) && kept.contains(&groups[3]));
        assert_eq!(stage.store.failure_details(groups[1]).await.unwrap(), None);
    });
}

#[test]
fn groups_are_deleted_long_after_their_last_failure() {
    on_every_store(|stage| async move {
        let mut groups = Vec::new();
        for text in ["a", "b", "c"] {
            let (id, _) = stage.fail(COUNT, "k", text, Some("d1")).await;
            groups.push(stage.fingerprint(id).await);
            stage.pass(SECOND);
        }
        let before = stage.details(groups[2]).await.group.last_seen;
        assert_eq!(stage.store.delete_failures(before, 1).await.unwrap(), 1);
        assert_eq!(stage.groups().await, [groups[2], groups[1]]);
        assert_eq!(stage.store.delete_failures(before, 10).await.unwrap(), 1);
        assert_eq!(stage.store.delete_failures(before, 10).await.unwrap(), 0);
        assert_eq!(stage.groups().await, [groups[2]]);
        // The next failure begins a new group.
        stage.fail(COUNT, "k", "a", None).await;
        let again = stage.details(groups[0]).await;
        assert_eq!((again.group.count, again.group.keys, again.versions, again.samples.len()), (1, 1, vec![], 1));
    });
}

#[test]
fn a_job_that_is_deleted_is_no_sample_any_more() {
    on_every_store(|stage| async move {
        let (a, _) = stage.fail(COUNT, "", "no order 17", None).await;
        stage.pass(SECOND);
        let (b, _) = stage.fail(COUNT, "", "no order 18", None).await;
        let group = stage.fingerprint(a).await;
        assert_eq!(stage.delete_finished(stage.store.now(), 10).await.unwrap(), 1);
        let details = stage.details(group).await;
        assert_eq!((details.group.count, details.samples.len(), details.samples[0].job), (2, 1, b));
    });
}

/// Two hosts count failures of the same groups, in opposite orders, while groups are deleted: nobody waits in a circle.
#[test]
fn hosts_count_in_the_same_groups_side_by_side() {
    block_on(async {
        let address = shared_address();
        let stages = [Stage::at(&address).await, Stage::at(&address).await];
        let both = stages.iter().enumerate().map(|(host, stage)| async move {
            // Each host has a group of limits of its own, so that only the failures meet.
            let task = [COUNT, LIST][host];
            for round in 0..20 {
                let ids = stage.add_many(task, "", 8).await;
                let mut claim = stage.wish(8);
                claim.tasks = stage.tasks.iter().filter(|(name, _)| name.as_str() == task).cloned().collect();
                let leased = stage.store.claim(claim).await.unwrap().leased;
                assert_eq!(leased.len(), ids.len());
                let mut events: Vec<_> = leased
                    .iter()
                    .zip(["a", "b", "c", "d", "e", "f", "g", "h"])
                    .map(|(leased, text)| (leased.lease.job, fails(1, text, Some("d1"), None)))
                    .collect();
                if host == 1 {
                    events.reverse();
                }
                let recorded = stage.store.record(Arc::new(events)).await.unwrap();
                assert!(recorded.iter().all(Result::is_ok));
                if round % 5 == 4 {
                    stage.store.delete_failures(stage.store.now() + SECOND, 3).await.unwrap();
                }
            }
        });
        futures_util::future::join_all(both).await;
        drop(PostgresStore::open(&address).await.unwrap());
    });
}

#[test]
fn new_groups_take_no_state_away_that_an_operator_set() {
    on_every_store(|stage| async move {
        let mut kept = Vec::new();
        for (text, state) in [("ignored", FailureState::Ignored), ("resolved", FailureState::Resolved)] {
            let (id, _) = stage.fail(COUNT, "", text, None).await;
            let group = stage.fingerprint(id).await;
            stage.store.set_failure_state(group, state, Author::anyone()).await.unwrap().unwrap();
            kept.push((group, state));
            stage.pass(SECOND);
        }
        let letter = |number: u32| char::from(b'g' + (number % 20) as u8);
        for first in (0..bounds::FAILURE_GROUPS_MAX + 5).step_by(41) {
            let numbers: Vec<u32> = (first..first + 41).collect();
            let jobs = stage.add_many(COUNT, "", numbers.len()).await;
            stage.claim(numbers.len() as u32).await;
            let end = |(job, number): (&JobId, &u32)| {
                let text = format!("unknown colour {}{}", letter(*number), letter(number / 20));
                (*job, fails(1, &text, None, None))
            };
            stage.store.record(Arc::new(jobs.iter().zip(&numbers).map(end).collect())).await.unwrap();
            stage.pass(SECOND);
        }
        for (group, state) in kept {
            assert_eq!(stage.details(group).await.group.state, state);
        }
        let open = FailureFilter { max: 1000, state: Some(FailureState::Open), ..FailureFilter::default() };
        let open = stage.store.failures(open).await.unwrap().groups.len();
        assert!((1..=bounds::FAILURE_GROUPS_MAX as usize + 40).contains(&open), "{open} open groups");
    });
}

#[test]
fn keys_are_counted_up_to_the_bound_whatever_a_transaction_knows_already() {
    on_every_store(|stage| async move {
        let keys = bounds::FAILURE_KEYS_MAX as usize - 1;
        let record = async |keys: Vec<String>| {
            let new: Vec<_> = keys.iter().map(|key| stage.new_job(COUNT, key)).collect();
            stage.store.insert(new, stage.declared.clone()).await.unwrap();
            let leased = stage.claim(keys.len() as u32).await;
            let ends = leased.iter().map(|leased| (leased.lease.job, fails(1, "no order 17", None, None))).collect();
            stage.store.record(Arc::new(ends)).await.unwrap();
            leased[0].lease.job
        };
        let mut job = None;
        for first in (0..keys).step_by(250) {
            job = Some(record((first..keys.min(first + 250)).map(|number| format!("k{number}")).collect()).await);
        }
        let group = stage.fingerprint(job.unwrap()).await;
        assert_eq!(stage.details(group).await.group.keys as usize, keys);
        let known = (0..40).map(|number| format!("k{number}"));
        record(known.chain(["new".to_owned(), "newer".to_owned()]).collect()).await;
        assert_eq!(stage.details(group).await.group.keys, bounds::FAILURE_KEYS_MAX);
    });
}
