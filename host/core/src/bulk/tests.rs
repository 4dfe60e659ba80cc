use super::*;
use crate::author::Author;
use crate::job::{JobStatus, NewJob, State};

const NOW: Timestamp = Timestamp::from_millis(5_000);
const MINUTE: Duration = Duration::from_secs(60);

fn id(number: u64) -> JobId {
    JobId::from_number(number).unwrap()
}

fn new(trial: Option<Trial>) -> NewOperation {
    let query = JobQuery::parse("state:failed key:acme", NOW).unwrap();
    NewOperation { trial, ..NewOperation::at_once(id(100), BulkAct::Retry, query, Author::anyone()) }
}

fn step(operation: &BulkOperation, targets: &[u64], state: OperationState) -> OperationStep {
    let target = |number: &u64| BulkTarget {
        id: id(*number),
        state: StateName::Failed,
        attempt: 1,
        finished_at: None,
        retried_at: None,
        delay: Duration::ZERO,
    };
    let cursor = targets.iter().min().map(|lowest| id(*lowest));
    OperationStep {
        operation: operation.id,
        step: operation.step,
        targets: targets.iter().map(target).collect(),
        left_out: 0,
        cursor,
        state,
        reason: None,
    }
}

fn job(enqueued_at: u64, finished_at: Option<u64>) -> Job {
    let new = NewJob::ready(id(1), "a/b".parse().unwrap(), None, [].into());
    let job = Job::inserted(new, Timestamp::from_millis(enqueued_at));
    let status = JobStatus { state: State::Failed, ..job.status };
    Job { status, finished_at: finished_at.map(Timestamp::from_millis), ..job }
}

#[test]
fn an_operation_is_about_the_jobs_of_its_beginning() {
    let operation = new(None).started_at(NOW);
    assert_eq!(operation.query().unwrap(), new(None).query);
    assert_eq!(operation.as_of(), AsOf { operation: id(100), at: NOW });
}

#[test]
fn each_step_is_taken_once() {
    let operation = new(None).started_at(NOW);
    let first = step(&operation, &[9, 8, 7], OperationState::Running);
    let after = operation.after(&first, &[id(9), id(7)], NOW).unwrap();
    assert_eq!((after.step, after.changed, after.skipped, after.cursor), (1, 2, 1, Some(id(7))));
    assert_eq!(after.after(&first, &[], NOW), None, "another host has taken it");
    let last = step(&after, &[], OperationState::Done);
    let done = after.after(&last, &[], NOW + MINUTE).unwrap();
    assert_eq!((done.cursor, done.ended_at), (Some(id(7)), Some(NOW + MINUTE)));
    assert_eq!((done.next(&[], 9, NOW), done.cancelled(NOW)), (NextStep::Nothing, None));
    let cancelled = after.cancelled(NOW).unwrap();
    assert_eq!(cancelled.after(&last, &[], NOW), None, "a step that was decided before does nothing");
}

#[test]
fn a_trial_goes_on_when_all_its_jobs_succeeded_in_time() {
    let trial = Trial { jobs: 2, within: MINUTE };
    let operation = new(Some(trial)).started_at(NOW);
    assert_eq!(operation.next(&[], 100, NOW), NextStep::Change { max: 2 });
    let one = step(&operation, &[9, 8], OperationState::Trying);
    let after = operation.after(&one, &[id(9)], NOW).unwrap();
    assert_eq!(after.next(&[Some(StateName::Running)], 100, NOW), NextStep::Change { max: 1 }, "one had moved on");
    let two = step(&after, &[7], OperationState::Trying);
    let tried = after.after(&two, &[id(7)], NOW).unwrap();
    let next = |states: [Option<StateName>; 2], now| tried.next(&states, 100, now);
    let (done, waits) = (Some(StateName::Succeeded), Some(StateName::Waiting));
    assert_eq!(next([done, waits], NOW), NextStep::Await);
    assert_eq!(next([done, done], NOW + 2 * MINUTE), NextStep::GoOn);
    for (states, now, reason) in [
        ([done, Some(StateName::Failed)], NOW, "did not succeed: 0000000000007 (failed)"),
        ([None, waits], NOW, "did not succeed: 0000000000009 (was deleted)"),
        ([Some(StateName::Running), done], NOW + MINUTE, "had not ended in time: 0000000000009 (running)"),
    ] {
        let NextStep::Halt(said) = next(states, now) else { panic!("{states:?}") };
        assert!(said.ends_with(reason), "{said}");
    }
}

#[test]
fn next_attempts_are_spread_the_same_way_by_everybody() {
    let operation = BulkOperation { spread: MINUTE, ..new(None).started_at(NOW) };
    let delays: Vec<Duration> = (1..=600).map(|number| operation.delay(id(number))).collect();
    assert_eq!(operation.delay(id(3)), delays[2]);
    assert!(delays.iter().all(|delay| *delay < MINUTE));
    for part in 0..6 {
        let of_part = delays.iter().filter(|delay| delay.as_secs() / 10 == part).count();
        assert!((60..=140).contains(&of_part), "{of_part} of 600 in a sixth of the time");
    }
    assert_eq!(new(None).started_at(NOW).delay(id(3)), Duration::ZERO);
}

#[test]
fn the_jobs_of_a_trial_are_not_spread() {
    let trial = Trial { jobs: 1, within: MINUTE };
    let trying = BulkOperation { spread: MINUTE, ..new(Some(trial)).started_at(NOW) };
    let running = BulkOperation { state: OperationState::Running, ..trying.clone() };
    let job = job(1, Some(2));
    assert_eq!(trying.target(&job).delay, Duration::ZERO);
    assert_eq!(running.target(&job).delay, running.delay(job.id));
    assert!(!running.delay(job.id).is_zero());
}

#[test]
fn a_step_that_is_cut_leaves_the_rest_to_a_later_one() {
    let operation = new(None).started_at(NOW);
    let mut step = step(&operation, &[9, 8, 7], OperationState::Done);
    step.cut(2, 0, operation.state);
    assert_eq!((step.targets.len(), step.cursor, step.state), (2, Some(id(8)), OperationState::Running));
    let after = operation.after(&step, &[id(9), id(8)], NOW).unwrap();
    assert_eq!((after.cursor, after.changed, after.ended_at), (Some(id(8)), 2, None));
}

#[test]
fn the_events_of_an_operation_carry_its_numbers() {
    let operation = BulkOperation { attempts: 3, priority: -7, ..new(None).started_at(NOW) };
    let target = operation.target(&job(1, Some(2)));
    let of = |act| BulkOperation { act, ..operation.clone() };
    let retry = Event::RetryRequested { delay: Duration::ZERO, attempts: 3 };
    assert_eq!(of(BulkAct::Retry).event(&target), Some(retry));
    assert_eq!(of(BulkAct::SetPriority).event(&target), Some(Event::PriorityChanged { priority: -7 }));
    assert_eq!(of(BulkAct::Delete).event(&target), None);
    let texts = [BulkAct::Retry, BulkAct::SetPriority, BulkAct::Cancel].map(|act| of(act).act_text());
    assert_eq!(texts, ["retry with 3 attempts", "set-priority -7", "cancel"]);
}

#[test]
fn a_step_is_on_the_jobs_that_were_found() {
    let operation = new(None).started_at(NOW);
    let step = operation.step_on(&[job(1, Some(2))], 3, Some(id(1)));
    let expected = (1, 3, Some(id(1)), OperationState::Running);
    assert_eq!((step.targets.len(), step.left_out, step.cursor, step.state), expected);
    assert_eq!(operation.step_on(&[], 0, None).state, OperationState::Done);
    let halt = operation.step_to(OperationState::Halted, Some("why".to_owned()));
    let halted = operation.after(&halt, &[], NOW).unwrap();
    assert_eq!((halted.reason.as_deref(), halted.ended_at), (Some("why"), Some(NOW)));
}

#[test]
fn released_names_read_back() {
    for act in BulkAct::ALL {
        assert_eq!(act.as_str().parse(), Ok(act));
    }
    for state in OperationState::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
    }
    assert_eq!(BulkAct::ALL.map(BulkAct::as_str), ["retry", "cancel", "delete", "run-now", "set-priority"]);
    assert_eq!(OperationState::ALL.map(OperationState::as_str), ["trying", "running", "halted", "done", "cancelled"]);
}

#[test]
fn a_trial_of_all_jobs_that_match_ends_by_their_ends() {
    let trial = Trial { jobs: 5, within: MINUTE };
    let operation = new(Some(trial)).started_at(NOW);
    let jobs: Vec<Job> = [9, 8, 7].map(|number| Job { id: id(number), ..job(1, Some(2)) }).into();
    let last = operation.step_on(&jobs, 0, None);
    assert_eq!((last.targets.len(), last.state), (3, OperationState::Trying));
    let tried = operation.after(&last, &[id(9), id(8), id(7)], NOW).unwrap();
    let (done, failed) = (Some(StateName::Succeeded), Some(StateName::Failed));
    assert_eq!(tried.next(&[done, Some(StateName::Running), done], 100, NOW), NextStep::Await);
    let NextStep::Halt(said) = tried.next(&[done, failed, done], 100, NOW) else { panic!("it went on") };
    assert!(said.ends_with("0000000000008 (failed)"), "{said}");
    assert_eq!(tried.next(&[done; 3], 100, NOW), NextStep::GoOn);
    let running = tried.after(&tried.step_to(OperationState::Running, None), &[], NOW).unwrap();
    assert_eq!(running.next(&[], 100, NOW), NextStep::Change { max: 100 });
    assert_eq!(running.step_on(&[], 0, None).state, OperationState::Done);

    let all_moved_on = operation.after(&last, &[], NOW).unwrap();
    assert_eq!((all_moved_on.next(&[], 100, NOW), all_moved_on.skipped), (NextStep::GoOn, 3));
    assert_eq!(operation.step_on(&[], 0, None).state, OperationState::Done, "there is nothing to try");
}

#[test]
fn jobs_that_moved_on_are_counted_as_skipped() {
    let operation = new(None).started_at(NOW);
    let of = |number: u64| Job { id: id(number), ..job(1, Some(5_000)) };
    let step = operation.step_on(&[of(8), of(7)], 2, None);
    let after = operation.after(&step, &[id(8)], NOW).unwrap();
    assert_eq!((after.changed, after.skipped), (1, 3));
    let mut cut = operation.step_on(&[of(8), of(6)], 3, None);
    cut.cut(1, 1, operation.state);
    assert_eq!((cut.left_out, cut.cursor), (1, Some(id(8))), "one had moved on before the one that stays");
}

#[test]
fn a_request_is_sent_twice_if_author_and_token_are_the_same() {
    let token = |text: &str| Some(text.parse().unwrap());
    let ann = NewOperation { author: Author::token("ann"), token: token("a"), ..new(None) };
    let known = ann.started_at(NOW);
    assert!(ann.has_become(&known));
    let query = JobQuery::parse("state:failed key:other", NOW).unwrap();
    assert!(NewOperation { query, act: BulkAct::Delete, ..ann.clone() }.has_become(&known), "only these count");
    assert!(ann.has_become(&known.cancelled(NOW).unwrap()), "also once it has ended");
    for other in [
        NewOperation { token: token("b"), ..ann.clone() },
        NewOperation { token: None, ..ann.clone() },
        NewOperation { author: Author::token("bob"), ..ann.clone() },
        NewOperation { author: Author::anyone(), ..ann.clone() },
    ] {
        assert!(!other.has_become(&known), "{other:?}");
    }
    let without = NewOperation { token: None, ..ann };
    assert!(!without.has_become(&without.started_at(NOW)), "without a token each request counts");
}
