//! Tests the lifecycle as a table: every state with every event.

use std::time::Duration;

use super::*;
use crate::ids::{JobId, NodeId};
use crate::lease::{StartedSuspect, is_suspect};

const NOW: Timestamp = Timestamp::from_millis(1_000);
const LATER: Timestamp = Timestamp::from_millis(9_000);
const DELAY: Duration = Duration::from_secs(8);

fn lease(attempt: u32) -> Lease {
    Lease { job: JobId::from_number(1).unwrap(), attempt, node: NodeId(1), until: LATER }
}

fn status(state: State) -> JobStatus {
    JobStatus { state, attempt: 2, failures: FailureCount::NONE.plus_one(), crashes: 1, cancel_requested: false }
}

fn report() -> Report {
    Report { kind: OutcomeKind::Trapped, text: String::new() }
}

fn events(attempt: u32) -> [(&'static str, Event); 14] {
    let usage = Usage::default();
    [
        ("claimed", Event::Claimed { lease: lease(attempt + 1) }),
        ("wrote", Event::Wrote { attempt, entries: vec![] }),
        ("succeeded", Event::Succeeded { attempt, output: [].into(), children: vec![], changes: None, usage }),
        ("failed, again", Event::Failed { attempt, report: report(), retry_in: Some(DELAY), usage, origin: None }),
        ("failed, over", Event::Failed { attempt, report: report(), retry_in: None, usage, origin: None }),
        ("released", Event::Released { attempt, report: report(), claimable_in: DELAY, usage: None, origin: None }),
        ("cancelled", Event::Cancelled { attempt, usage, origin: None }),
        ("lease expired", Event::LeaseExpired { attempt, mark: NodeMark::default() }),
        ("cancel asked", Event::CancelRequested),
        ("replaced", Event::Replaced),
        ("not taken", Event::NotEnqueued(NotEnqueued::LaneFull(vec![]))),
        ("retry asked", Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }),
        ("run asked", Event::RunRequested),
        ("priority", Event::PriorityChanged { priority: 3 }),
    ]
}

fn row(state: State, cancel_requested: bool, attempt: u32) -> Vec<String> {
    let before = JobStatus { cancel_requested, ..status(state) };
    let cell = |(name, event): &(&str, Event)| match before.after(event, NOW) {
        Ok(after) => {
            let due = match after.state {
                State::Waiting { due } => format!(" at {}", due.as_millis()),
                _ => String::new(),
            };
            let asked = if after.cancel_requested { ", asked to end" } else { "" };
            let counts = (after.attempt, after.failures.failed(), after.crashes);
            format!("{name}: {}{due} {counts:?}{asked}", after.state.name().as_str())
        }
        Err(refusal) => format!("{name}: {refusal:?}"),
    };
    events(attempt).iter().map(cell).collect()
}

#[test]
fn what_may_happen_to_a_waiting_job() {
    assert_eq!(
        row(State::Waiting { due: NOW }, false, 2),
        [
            "claimed: running (3, 1, 1)",
            "wrote: Stale",
            "succeeded: Stale",
            "failed, again: Stale",
            "failed, over: Stale",
            "released: Stale",
            "cancelled: Stale",
            "lease expired: Stale",
            "cancel asked: cancelled (2, 1, 1)",
            "replaced: cancelled (2, 1, 1)",
            "not taken: cancelled (2, 1, 1)",
            "retry asked: NotFinished(Waiting)",
            "run asked: waiting at 1000 (2, 1, 1)",
            "priority: waiting at 1000 (2, 1, 1)",
        ]
    );
}

#[test]
fn what_may_happen_to_a_running_job() {
    assert_eq!(
        row(State::Running { lease: lease(2) }, false, 2),
        [
            "claimed: Stale",
            "wrote: running (2, 1, 1)",
            "succeeded: succeeded (2, 1, 1)",
            "failed, again: waiting at 9000 (2, 2, 1)",
            "failed, over: failed (2, 2, 1)",
            "released: waiting at 9000 (2, 1, 1)",
            "cancelled: cancelled (2, 1, 1)",
            "lease expired: waiting at 1000 (2, 1, 2)",
            "cancel asked: running (2, 1, 1), asked to end",
            "replaced: Stale",
            "not taken: Stale",
            "retry asked: NotFinished(Running)",
            "run asked: NotWaiting(Running)",
            "priority: NotWaiting(Running)",
        ]
    );
}

#[test]
fn what_may_happen_to_a_running_job_that_was_asked_to_cancel() {
    assert_eq!(
        row(State::Running { lease: lease(2) }, true, 2),
        [
            "claimed: Stale",
            "wrote: running (2, 1, 1), asked to end",
            "succeeded: succeeded (2, 1, 1)",
            "failed, again: cancelled (2, 2, 1)",
            "failed, over: failed (2, 2, 1)",
            "released: cancelled (2, 1, 1)",
            "cancelled: cancelled (2, 1, 1)",
            "lease expired: cancelled (2, 1, 2)",
            "cancel asked: running (2, 1, 1), asked to end",
            "replaced: Stale",
            "not taken: Stale",
            "retry asked: NotFinished(Running)",
            "run asked: NotWaiting(Running)",
            "priority: NotWaiting(Running)",
        ]
    );
}

#[test]
fn another_attempt_changes_nothing() {
    for attempt in [1, 3] {
        let cells = row(State::Running { lease: lease(2) }, false, attempt);
        assert!(cells[..8].iter().all(|cell| cell.ends_with("Stale")), "{cells:?}");
    }
}

#[test]
fn what_may_happen_to_a_finished_job() {
    for (state, retried) in [
        (State::Succeeded, "NotFinished(Succeeded)"),
        (State::Failed, "waiting at 1000 (2, 0, 0)"),
        (State::Cancelled, "waiting at 1000 (2, 0, 0)"),
    ] {
        let cells = row(state, false, 2);
        assert!(cells[..8].iter().all(|cell| cell.ends_with("Stale")), "{cells:?}");
        assert_eq!(cells[8], format!("cancel asked: Finished({:?})", state.name()));
        assert_eq!((cells[9].as_str(), cells[10].as_str()), ("replaced: Stale", "not taken: Stale"));
        assert_eq!(cells[11], format!("retry asked: {retried}"));
        assert_eq!(cells[12], format!("run asked: NotWaiting({:?})", state.name()));
        assert_eq!(cells[13], format!("priority: NotWaiting({:?})", state.name()));
    }
}

/// Returns the status of a job after one more attempt that ended with its host, whose mark is `mark`.
fn crashed(job: JobStatus, mark: NodeMark) -> JobStatus {
    let attempt = job.attempt + 1;
    let claimed = job.after(&Event::Claimed { lease: lease(attempt) }, NOW).unwrap();
    claimed.after(&Event::LeaseExpired { attempt, mark }, NOW).unwrap()
}

fn started(attempt: u32, alone: bool) -> NodeMark {
    NodeMark { draining: false, suspect: Some(StartedSuspect { job: lease(attempt).job, attempt, alone }) }
}

#[test]
fn a_job_that_kills_hosts_while_it_runs_alone_is_failed() {
    let mut job = JobStatus::new(NOW);
    for attempt in 1..=bounds::CRASHES_MAX {
        assert_eq!(job.state, State::Waiting { due: NOW });
        let mark = if is_suspect(job.crashes) { started(attempt, true) } else { NodeMark::default() };
        job = crashed(job, mark);
    }
    assert_eq!((job.state, job.failures, job.crashes), (State::Failed, FailureCount::NONE, bounds::CRASHES_MAX));
}

#[test]
fn hosts_that_die_of_something_else_fail_no_job() {
    let mut job = JobStatus::new(NOW);
    for _ in 0..bounds::SUSPECT_CRASHES {
        job = crashed(job, NodeMark::default());
    }
    // Parked: the host died before the job was started. A mark about another attempt or another job says nothing about
    // it.
    let other = NodeMark {
        suspect: Some(StartedSuspect { job: JobId::from_number(2).unwrap(), attempt: 5, alone: true }),
        ..started(5, true)
    };
    for mark in [NodeMark::default(), started(1, true), other] {
        job = crashed(job, mark);
        assert_eq!((job.state, job.crashes), (State::Waiting { due: NOW }, bounds::SUSPECT_CRASHES));
    }
    // Beside other jobs it is one of many, however often it crashes.
    for _ in 0..10 {
        job = crashed(job, started(job.attempt + 1, false));
    }
    assert_eq!((job.state, job.crashes), (State::Waiting { due: NOW }, bounds::SUSPECT_CRASHES + 10));
}

#[test]
fn a_host_that_is_killed_during_a_drain_blames_no_job() {
    let draining = |mark: NodeMark| NodeMark { draining: true, ..mark };
    let mut job = JobStatus::new(NOW);
    for _ in 0..20 {
        job = crashed(job, draining(NodeMark::default()));
    }
    assert_eq!((job.state, job.crashes, job.failures), (State::Waiting { due: NOW }, 0, FailureCount::NONE));
    let mut suspect = JobStatus { crashes: bounds::CRASHES_MAX - 1, ..job };
    suspect = crashed(suspect, draining(started(suspect.attempt + 1, true)));
    assert_eq!((suspect.state, suspect.crashes), (State::Waiting { due: NOW }, bounds::CRASHES_MAX - 1));
    let report = Event::LeaseExpired { attempt: 1, mark: draining(NodeMark::default()) }.report().unwrap();
    assert!(report.text.contains("during its shutdown"), "{report:?}");
}

#[test]
fn a_job_is_retried_after_a_delay_and_run_before_it_is_due() {
    let retried = status(State::Failed).after(&Event::RetryRequested { delay: DELAY, attempts: 1 }, NOW).unwrap();
    assert_eq!((retried.state, retried.failures), (State::Waiting { due: LATER }, FailureCount::granted(1)));
    let run = retried.after(&Event::RunRequested, NOW).unwrap();
    assert_eq!(run, JobStatus { state: State::Waiting { due: NOW }, ..retried });
    let due = Timestamp::from_millis(1);
    let early = JobStatus { state: State::Waiting { due }, ..run };
    assert_eq!(early.after(&Event::RunRequested, NOW).unwrap().state, State::Waiting { due }, "it keeps its place");
}

#[test]
fn the_last_attempt_number_is_never_used_twice() {
    let failed =
        status(State::Failed).after(&Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }, NOW).unwrap();
    assert_eq!(failed.attempt, 2, "so that the next one is the third, and the second stays fenced off");
}

fn succeeded() -> Event {
    Event::Succeeded { attempt: 1, output: [].into(), children: vec![], changes: None, usage: Usage::default() }
}

#[test]
fn a_record_call_may_neither_lease_a_job_nor_reject_a_new_one() {
    for (name, event) in events(1) {
        assert_eq!(event.is_recordable(), !["claimed", "not taken"].contains(&name), "{name}");
    }
}

#[test]
fn the_size_of_an_event_is_what_a_store_writes_for_it() {
    let child = |bytes: usize| NewJob {
        id: JobId::from_number(9).unwrap(),
        task: "p/t".parse().unwrap(),
        lane: crate::key::Lane { group: "g".parse().unwrap(), key: None },
        payload: vec![0; bytes].into(),
        priority: 0,
        due: None,
        token: None,
        on_conflict: Default::default(),
        batch: None,
        lineage: Default::default(),
        tick: None,
    };
    let mut changes = KvChanges::new("p".parse().unwrap());
    changes.put("key".parse().unwrap(), Some([0; 4].into())).unwrap();
    let Event::Succeeded { attempt, usage, .. } = succeeded() else { unreachable!() };
    let full = Event::Succeeded {
        attempt,
        output: [0; 10].into(),
        children: vec![child(200), child(300)],
        changes: Some(Arc::new(changes)),
        usage,
    };
    assert_eq!(full.bytes(), 10 + 200 + 300 + 3 + 4);

    let entries = vec![Entry::Chunk([0; 5].into()), Entry::Chunk([0; 6].into())];
    assert_eq!(Event::Wrote { attempt: 1, entries }.bytes(), 11);
    let report = Report { kind: OutcomeKind::Trapped, text: "twelve bytes".to_owned() };
    let failed = Event::Failed { attempt: 1, report: report.clone(), retry_in: None, usage, origin: None };
    let released = Event::Released { attempt: 1, report, claimable_in: DELAY, usage: None, origin: None };
    assert_eq!((failed.bytes(), released.bytes(), Event::CancelRequested.bytes()), (12, 12, 0));
}

#[test]
fn what_a_user_reads_on_a_job_after_each_event() {
    let left = |event: &Event| event.report().map(|report| (report.kind, report.text));
    let text = |kind, text: &str| Some((kind, text.to_owned()));
    for (name, event) in events(1) {
        let expected = match name {
            "failed, again" | "failed, over" | "released" => text(OutcomeKind::Trapped, ""),
            "cancelled" | "cancel asked" => text(OutcomeKind::Cancelled, "cancelled on request"),
            "replaced" => text(OutcomeKind::Cancelled, "replaced by a newer job of the same key"),
            "not taken" => text(OutcomeKind::Cancelled, &NotEnqueued::LaneFull(vec![]).to_string()),
            "lease expired" => {
                text(OutcomeKind::Interrupted, "the host that ran this attempt died or could not renew its lease")
            }
            _ => None,
        };
        assert_eq!(left(&event), expected, "{name}");
    }
}

#[test]
fn the_report_of_an_expired_lease_says_whether_the_host_was_shutting_down_or_the_job_ran_alone() {
    let text = |mark: NodeMark| Event::LeaseExpired { attempt: 1, mark }.report().unwrap().text;
    let [plain, beside] = [text(NodeMark::default()), text(started(1, false))];
    assert_eq!(plain, beside, "any of the jobs there may have ended the host");
    assert!(text(started(1, true)).contains("no other job was running there"));
    let draining = text(NodeMark { draining: true, ..started(1, true) });
    assert!(draining.contains("does not count against the job"), "{draining}");
}

#[test]
fn a_refusal_tells_users_the_state_that_the_job_is_in() {
    assert_eq!(Refusal::Finished(StateName::Failed).to_string(), "the job has already finished (failed)");
    assert_eq!(
        Refusal::NotFinished(StateName::Running).to_string(),
        "only a failed or cancelled job can be retried; this one is running"
    );
    assert_eq!(Refusal::Unknown.to_string(), "no such job");
    assert_eq!(Refusal::Stale.to_string(), "the job no longer belongs to this attempt");
}
