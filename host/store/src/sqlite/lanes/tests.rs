//! Rolling back a transaction restores what was there before it, whatever the transaction did.

use wharf_core::ids::NodeId;
use wharf_core::job::{JobStatus, State};
use wharf_core::lease::Lease;
use wharf_core::retry::FailureCount;
use wharf_core::time::Timestamp;

use super::*;

/// Returns everything that lanes know as sorted text, without the numbers of lanes and the last turn: these may differ after a
/// roll-back.
fn state_of(lanes: &Lanes) -> String {
    let mut all: Vec<String> = lanes
        .slab
        .lanes()
        .map(|no| {
            let state = &lanes.slab[no];
            let (mut lines, mut holders) = (state.lines().collect::<Vec<_>>(), state.holders().to_vec());
            lines.sort_unstable_by_key(|line| line.number);
            holders.sort_unstable();
            let in_order = lanes.ready.of_lane(no);
            assert_eq!(in_order.len(), if state.position().open { lines.len() } else { 0 });
            let lane = lane_name(&lanes.lane(no));
            format!("{lane} {:?} {lines:?} {holders:?} {:?} {in_order:?}", state.position(), lanes.turn_row(no))
        })
        .collect();
    all.sort_unstable();
    let mut jobs: Vec<String> = lanes.all_running().map(|(id, job)| format!("{id} {job:?}")).collect();
    jobs.sort_unstable();
    format!("{all:#?} {jobs:#?} {:?}", lanes.running.claims())
}

fn lane_name(lane: &Lane) -> String {
    format!("{}/{}", lane.group, lane.key.as_ref().map_or("", |key| key.as_str()))
}

fn lane(number: u64) -> Lane {
    Lane { group: "words/count".parse().unwrap(), key: Some(format!("k{number}").parse().unwrap()) }
}

/// Makes one change of any kind.
fn change(lanes: &mut Lanes, jitter: &mut fastrand::Rng) {
    let no = lanes.find_or_add(&lane(jitter.u64(0..5)));
    let task = jitter.i64(1..3);
    let id = JobId::from_number(jitter.u64(1..9)).unwrap();
    match jitter.u8(0..8) {
        0..=2 => drop(lanes.add_ready(no, task, jitter.i32(-1..2))),
        3 => {
            if let Some(line) = lanes.line(no, task) {
                lanes.set_line(no, task, Some(Line { count: line.count - 1, top: line.low, ..line }));
            }
        }
        4 => {
            let turn = lanes.next_turn();
            lanes.set_turn(no, turn, jitter.bool());
        }
        5 => lanes.open_all(),
        6 => {
            let lease = Lease { job: id, attempt: 1, node: NodeId(1), until: Timestamp::ZERO };
            let status = JobStatus {
                state: State::Running { lease },
                attempt: 1,
                failures: FailureCount::NONE,
                crashes: 0,
                cancel_requested: jitter.bool(),
            };
            let lane = lanes.running(id).map_or(no, |job| job.lane);
            let claim = jitter.bool().then(|| jitter.i64(1..4));
            let job = RunningJob { status, lane, task, priority: 0, started_at: Timestamp::ZERO, claim };
            lanes.set_running(id, Some(job));
        }
        _ => lanes.set_running(id, None),
    }
}

#[test]
fn rolling_back_restores_the_state() {
    for seed in 0..200 {
        let mut jitter = fastrand::Rng::with_seed(seed);
        let mut lanes = Lanes::default();
        for _ in 0..60 {
            let before = state_of(&lanes);
            for _ in 0..jitter.u8(1..12) {
                change(&mut lanes, &mut jitter);
            }
            lanes.obsolete_claims();
            if jitter.bool() {
                lanes.roll_back();
                assert_eq!(state_of(&lanes), before, "seed {seed}");
            } else {
                lanes.commit();
                let is_used = |no: LaneNo| lanes.lines(no).next().is_some() || !lanes.holders(no).is_empty();
                assert!(lanes.slab.lanes().all(is_used), "seed {seed}: a lane without jobs is kept");
            }
        }
    }
}

#[test]
fn claims_without_running_jobs_are_reported_once() {
    let mut lanes = Lanes::default();
    let no = lanes.find_or_add(&lane(1));
    let job = |number: u64, claim: Option<i64>| {
        let id = JobId::from_number(number).unwrap();
        let lease = Lease { job: id, attempt: 1, node: NodeId(1), until: Timestamp::ZERO };
        let status = JobStatus {
            state: State::Running { lease },
            attempt: 1,
            failures: FailureCount::NONE,
            crashes: 0,
            cancel_requested: false,
        };
        (id, Some(RunningJob { status, lane: no, task: 1, priority: 0, started_at: Timestamp::ZERO, claim }))
    };
    for number in 1..=3 {
        let (id, running) = job(number, Some(7));
        lanes.set_running(id, running);
    }
    assert!(lanes.obsolete_claims().is_empty());
    lanes.commit();
    // The first ends, and the row of the second is written: the third still needs the claim.
    lanes.set_running(job(1, None).0, None);
    let (id, running) = job(2, None);
    lanes.set_running(id, running);
    assert!(lanes.obsolete_claims().is_empty());
    lanes.commit();
    lanes.set_running(job(3, None).0, None);
    assert_eq!(lanes.obsolete_claims(), [7]);
}

#[test]
fn the_memory_of_many_lanes_is_freed() {
    let mut lanes = Lanes::default();
    let all: Vec<LaneNo> = (0..5000).map(|number| lanes.find_or_add(&lane(number))).collect();
    for no in &all {
        lanes.add_ready(*no, 1, 0);
    }
    lanes.commit();
    assert_eq!(lanes.open_lines(1, usize::MAX).collect::<Vec<_>>(), all);
    for no in &all {
        lanes.set_line(*no, 1, None);
    }
    lanes.commit();
    assert_eq!(lanes.slab.numbers().count(), 0);
    // It is allocated again when needed.
    let no = lanes.find_or_add(&lane(7));
    lanes.add_ready(no, 1, 0);
    lanes.commit();
    assert_eq!(lanes.find_or_add(&lane(7)), no);
}

#[test]
fn lines_whose_numbers_need_64_bits_work_as_others() {
    let mut lanes = Lanes::default();
    let no = lanes.find_or_add(&lane(1));
    let many = u64::from(u32::MAX) + 1;
    let lines = [(1, 3), (2, many), (i64::MAX, 5)].map(|(task, count)| {
        let line = Line { number: task, task, count, top: 4, low: -4 };
        lanes.set_line(no, task, Some(line));
        line
    });
    lanes.commit();
    for line in lines {
        assert_eq!(lanes.line(no, line.task), Some(line));
        assert_eq!(lanes.open_lines(line.task, 9).collect::<Vec<_>>(), [no]);
    }
    lanes.set_line(no, 2, Some(Line { count: many - 1, ..lines[1] }));
    lanes.set_line(no, 1, None);
    lanes.roll_back();
    assert_eq!(lanes.lines(no).map(|line| line.count).sum::<u64>(), 3 + many + 5);
}
