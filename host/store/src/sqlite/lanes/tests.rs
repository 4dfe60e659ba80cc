//! Whatever a transaction does, what is undone is as if it had never been.

use wharf_core::ids::NodeId;
use wharf_core::job::{JobStatus, State};
use wharf_core::lease::Lease;
use wharf_core::time::Timestamp;

use super::*;

/// All that lanes know, in an order of its own; places and counts that only grow may differ.
fn shown(lanes: &Lanes) -> String {
    let mut all: Vec<String> = lanes
        .places
        .taken()
        .map(|no| {
            let state = &lanes.places[no];
            let (mut lines, mut holders) = (state.lines().collect::<Vec<_>>(), state.holders().to_vec());
            lines.sort_unstable_by_key(|line| line.number);
            holders.sort_unstable();
            let in_ring = lanes.ring.of_lane(no);
            assert_eq!(in_ring.len(), if state.stand().open { lines.len() } else { 0 });
            let lane = lane_name(&lanes.lane(no));
            format!("{lane} {:?} {lines:?} {holders:?} {:?} {in_ring:?}", state.stand(), lanes.kept(no))
        })
        .collect();
    all.sort_unstable();
    let mut jobs: Vec<String> = lanes.all_running().map(|(id, hot)| format!("{id} {hot:?}")).collect();
    jobs.sort_unstable();
    format!("{all:#?} {jobs:#?} {:?}", lanes.running.claims())
}

fn lane_name(lane: &Lane) -> String {
    format!("{}/{}", lane.group, lane.key.as_ref().map_or("", |key| key.as_str()))
}

fn lane(number: u64) -> Lane {
    Lane { group: "words/count".parse().unwrap(), key: Some(format!("k{number}").parse().unwrap()) }
}

/// A few changes of any kind.
fn change(lanes: &mut Lanes, jitter: &mut fastrand::Rng) {
    let no = lanes.enter(&lane(jitter.u64(0..5)));
    let task = jitter.i64(1..3);
    let id = JobId::from_number(jitter.u64(1..9)).unwrap();
    match jitter.u8(0..8) {
        0..=2 => drop(lanes.add(no, task, jitter.i32(-1..2))),
        3 => {
            if let Some(line) = lanes.line(no, task) {
                lanes.change_line(no, task, Some(Line { count: line.count - 1, top: line.low, ..line }));
            }
        }
        4 => {
            let turn = lanes.next_turn();
            lanes.leave(no, turn, jitter.bool());
        }
        5 => lanes.open_all(),
        6 => {
            let lease = Lease { job: id, attempt: 1, node: NodeId(1), until: Timestamp::ZERO };
            let standing = JobStatus {
                state: State::Running { lease },
                attempt: 1,
                failures: 0,
                crashes: 0,
                cancel_asked: jitter.bool(),
            };
            let lane = lanes.running(id).map_or(no, |hot| hot.lane);
            let claim = jitter.bool().then(|| jitter.i64(1..4));
            let hot = Hot { standing, lane, task, priority: 0, started_at: Timestamp::ZERO, claim };
            lanes.change_job(id, Some(hot));
        }
        _ => lanes.change_job(id, None),
    }
}

#[test]
fn what_is_undone_never_was() {
    for seed in 0..200 {
        let mut jitter = fastrand::Rng::with_seed(seed);
        let mut lanes = Lanes::default();
        for _ in 0..60 {
            let before = shown(&lanes);
            for _ in 0..jitter.u8(1..12) {
                change(&mut lanes, &mut jitter);
            }
            lanes.claims_over();
            if jitter.bool() {
                lanes.undone();
                assert_eq!(shown(&lanes), before, "seed {seed}");
            } else {
                lanes.committed();
                let is_used = |no: LaneNo| lanes.lines(no).next().is_some() || !lanes.holders(no).is_empty();
                assert!(lanes.places.taken().all(is_used), "seed {seed}: a lane without jobs is remembered");
            }
        }
    }
}

#[test]
fn rows_of_claims_that_speak_for_nobody_are_named_once() {
    let mut lanes = Lanes::default();
    let no = lanes.enter(&lane(1));
    let job = |number: u64, claim: Option<i64>| {
        let id = JobId::from_number(number).unwrap();
        let lease = Lease { job: id, attempt: 1, node: NodeId(1), until: Timestamp::ZERO };
        let standing =
            JobStatus { state: State::Running { lease }, attempt: 1, failures: 0, crashes: 0, cancel_asked: false };
        (id, Some(Hot { standing, lane: no, task: 1, priority: 0, started_at: Timestamp::ZERO, claim }))
    };
    for number in 1..=3 {
        let (id, hot) = job(number, Some(7));
        lanes.change_job(id, hot);
    }
    assert!(lanes.claims_over().is_empty());
    lanes.committed();
    // One ends, one's row is written: the third still needs the claim.
    lanes.change_job(job(1, None).0, None);
    let (id, hot) = job(2, None);
    lanes.change_job(id, hot);
    assert!(lanes.claims_over().is_empty());
    lanes.committed();
    lanes.change_job(job(3, None).0, None);
    assert_eq!(lanes.claims_over(), [7]);
}

#[test]
fn what_many_lanes_took_is_given_back() {
    let mut lanes = Lanes::default();
    let all: Vec<LaneNo> = (0..5000).map(|number| lanes.enter(&lane(number))).collect();
    for no in &all {
        lanes.add(*no, 1, 0);
    }
    lanes.committed();
    assert_eq!(lanes.open_lines(1, usize::MAX).collect::<Vec<_>>(), all);
    for no in &all {
        lanes.change_line(*no, 1, None);
    }
    lanes.committed();
    assert_eq!(lanes.places.all().count(), 0);
    // And is made anew.
    let no = lanes.enter(&lane(7));
    lanes.add(no, 1, 0);
    lanes.committed();
    assert_eq!(lanes.enter(&lane(7)), no);
}

#[test]
fn lines_with_large_numbers_are_lines_like_others() {
    let mut lanes = Lanes::default();
    let no = lanes.enter(&lane(1));
    let many = u64::from(u32::MAX) + 1;
    let lines = [(1, 3), (2, many), (i64::MAX, 5)].map(|(task, count)| {
        let line = Line { number: task, task, count, top: 4, low: -4 };
        lanes.change_line(no, task, Some(line));
        line
    });
    lanes.committed();
    for line in lines {
        assert_eq!(lanes.line(no, line.task), Some(line));
        assert_eq!(lanes.open_lines(line.task, 9).collect::<Vec<_>>(), [no]);
    }
    lanes.change_line(no, 2, Some(Line { count: many - 1, ..lines[1] }));
    lanes.change_line(no, 1, None);
    lanes.undone();
    assert_eq!(lanes.lines(no).map(|line| line.count).sum::<u64>(), 3 + many + 5);
}
