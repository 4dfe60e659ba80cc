//! Tests admission against a queue that is a list. They check which jobs start, and how much of the queue is read for
//! it.

use std::convert::Infallible;

use super::*;

/// Jobs in the order in which they were added.
#[derive(Default)]
struct Queue {
    jobs: Vec<(LaneId, TaskName, Ready)>,
    lanes: Vec<(Lane, u64, bool)>,
    running: Vec<LaneId>,
    turn: u64,
    /// How many jobs were added.
    added: u64,
    started: Vec<u64>,
    /// How many jobs were read.
    seen: usize,
    /// How many times the queue was read.
    reads: usize,
    /// The groups whose running jobs were counted, in that order.
    counted: Vec<Group>,
    /// The lanes that are held until somebody releases them.
    held: Vec<LaneId>,
}

fn task(name: &str) -> TaskName {
    name.parse().unwrap()
}

fn group(name: &str) -> Group {
    name.parse().unwrap()
}

fn budget<'a>(
    tasks: &'a [(TaskName, Group)],
    free: u32,
    task_quotas: &'a [(TaskName, u32)],
    costs: &'a HashMap<TaskName, TaskCost>,
) -> ClaimBudget<'a> {
    ClaimBudget { tasks, free, room: Room::UNLIMITED, costs, task_quotas }
}

impl Queue {
    fn lane(&mut self, group_name: &str, key: &str) -> LaneId {
        let lane = Lane { group: group(group_name), key: Some(key.parse().unwrap()) };
        let place = self.lanes.iter().position(|(known, ..)| *known == lane).unwrap_or_else(|| {
            self.turn += 1;
            self.lanes.push((lane, self.turn, true));
            self.lanes.len() - 1
        });
        LaneId(place as u64)
    }

    fn add(&mut self, name: &str, group_name: &str, key: &str, priority: i32) -> u64 {
        let lane = self.lane(group_name, key);
        self.added += 1;
        let number = self.added;
        let id = JobId::from_number(number).unwrap();
        self.jobs.push((lane, task(name), Ready { id, priority, due: Timestamp::from_millis(number), bytes: 0 }));
        number
    }

    fn add_large(&mut self, key: &str, bytes: u64) -> u64 {
        let number = self.add("p/a", "g", key, 0);
        self.jobs.last_mut().unwrap().2.bytes = bytes;
        number
    }

    fn line(&self, id: LaneId, name: &TaskName) -> Option<Line> {
        let (lane, turn, open) = self.lanes[id.0 as usize].clone();
        let top =
            self.jobs.iter().filter(|(of, task, _)| *of == id && task == name).map(|(.., job)| job.priority).max()?;
        let holders = self.running.iter().filter(|of| **of == id).count() as u32;
        let held = self.held.contains(&id);
        open.then(|| Line { lane_id: id, lane, task: name.clone(), top, turn, holders, held })
    }

    fn admit(&mut self, tasks: &[(&str, &str)], limits: &LimitTable, free: u32) -> Vec<u64> {
        let tasks: Vec<_> = tasks.iter().map(|(name, group_name)| (task(name), group(group_name))).collect();
        self.started.clear();
        let Ok(admitted) = admit(self, &budget(&tasks, free, &[], &HashMap::new()), limits);
        let taken = self.started.len() as u32;
        assert_eq!(admitted, Admitted { taken, cut: false, quota_reached: false, short_of_room: false, overtook: 0 });
        self.started.clone()
    }

    /// Admits jobs of one task without limits. Returns the started jobs, and true if the claim was cut.
    fn admit_large(&mut self, free: u32) -> (Vec<u64>, bool) {
        self.started.clear();
        let tasks = [(task("p/a"), group("g"))];
        let Ok(admitted) = admit(self, &budget(&tasks, free, &[], &HashMap::new()), &LimitTable::default());
        (self.started.clone(), admitted.cut)
    }

    /// Admits with quotas for some tasks. Returns the started jobs, and true if a quota was used up.
    fn admit_within(&mut self, task_quotas: &[(&str, u32)], tasks: &[(&str, &str)], free: u32) -> (Vec<u64>, bool) {
        let tasks: Vec<_> = tasks.iter().map(|(name, group_name)| (task(name), group(group_name))).collect();
        let task_quotas: Vec<_> = task_quotas.iter().map(|(name, room)| (task(name), *room)).collect();
        self.started.clear();
        let Ok(admitted) = admit(self, &budget(&tasks, free, &task_quotas, &HashMap::new()), &LimitTable::default());
        (self.started.clone(), admitted.quota_reached)
    }
}

impl QueueView for Queue {
    type Error = Infallible;

    fn lines(&mut self, task: &TaskName, max: u32) -> Result<Vec<Line>, Infallible> {
        self.reads += 1;
        let mut lines: Vec<Line> = (0..self.lanes.len() as u64).filter_map(|id| self.line(LaneId(id), task)).collect();
        lines.sort_by_key(|line| (Reverse(line.top), line.turn));
        lines.truncate(max as usize);
        Ok(lines)
    }

    fn siblings(&mut self, lane: LaneId, task: &TaskName, tasks: &[TaskName]) -> Result<Vec<Line>, Infallible> {
        self.reads += 1;
        Ok(tasks.iter().filter(|other| *other != task).filter_map(|other| self.line(lane, other)).collect())
    }

    fn heads(&mut self, lane: LaneId, task: &TaskName, max: u32) -> Result<Vec<Ready>, Infallible> {
        self.reads += 1;
        let of_line = self.jobs.iter().filter(|(of, other, _)| *of == lane && other == task);
        let mut heads: Vec<Ready> = of_line.map(|(.., job)| *job).collect();
        heads.sort_by_key(|job| (Reverse(job.priority), job.due, job.id));
        heads.truncate(max as usize);
        self.seen += heads.len();
        Ok(heads)
    }

    fn group_holders(&mut self, group: &Group) -> Result<u32, Infallible> {
        self.counted.push(group.clone());
        Ok(self.running.iter().filter(|lane| self.lanes[lane.0 as usize].0.group == *group).count() as u32)
    }

    fn next_turn(&mut self) -> Result<u64, Infallible> {
        self.turn += 1;
        Ok(self.turn)
    }

    fn lease(&mut self, line: &Line, job: &Ready) -> Result<(), Infallible> {
        self.jobs.retain(|(.., waiting)| waiting.id != job.id);
        self.running.push(line.lane_id);
        self.started.push(job.id.number());
        Ok(())
    }

    fn leave(&mut self, lane: LaneId, turn: u64, open: bool) -> Result<(), Infallible> {
        (self.lanes[lane.0 as usize].1, self.lanes[lane.0 as usize].2) = (turn, open);
        Ok(())
    }

    fn hold(&mut self, lane: LaneId) -> Result<(), Infallible> {
        assert!(self.held.contains(&lane));
        self.lanes[lane.0 as usize].2 = false;
        Ok(())
    }
}

fn limits(group_name: &str, per_key: Option<u32>, total: Option<u32>) -> LimitTable {
    let mut table = LimitTable::default();
    table.declare(group(group_name), crate::limits::Limits { per_key, total });
    table
}

const ONE: &[(&str, &str)] = &[("p/a", "g")];
const TWO: &[(&str, &str)] = &[("p/a", "g"), ("p/b", "g")];

#[test]
fn lanes_take_turns_and_priority_goes_before() {
    let mut queue = Queue::default();
    let x: Vec<u64> = (0..3).map(|_| queue.add("p/a", "g", "x", 0)).collect();
    let y: Vec<u64> = (0..2).map(|_| queue.add("p/a", "g", "y", 0)).collect();
    let urgent = queue.add("p/a", "g", "y", 1);
    assert_eq!(queue.admit(ONE, &LimitTable::default(), 9), [urgent, x[0], y[0], x[1], y[1], x[2]]);
}

#[test]
fn a_lane_goes_on_where_the_last_claim_left_the_ring() {
    let mut queue = Queue::default();
    for key in ["x", "y", "z"] {
        (0..2).for_each(|_| _ = queue.add("p/a", "g", key, 0));
    }
    let rounds: Vec<u64> = (0..6).flat_map(|_| queue.admit(ONE, &LimitTable::default(), 1)).collect();
    let lane = |number: &u64| (number - 1) / 2;
    assert_eq!(rounds.iter().map(lane).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_full_lane_is_closed_and_those_behind_it_are_reached() {
    let mut queue = Queue::default();
    let table = limits("g", Some(1), None);
    for key in ["x", "y", "z"] {
        (0..3).for_each(|_| _ = queue.add("p/a", "g", key, 0));
    }
    assert_eq!(queue.admit(ONE, &table, 1).len(), 1);
    assert_eq!(queue.admit(ONE, &table, 1).len(), 1);
    assert_eq!(queue.admit(ONE, &table, 9).len(), 1);
    assert_eq!(queue.admit(ONE, &table, 9), [0u64; 0]);
    assert!(queue.lanes.iter().all(|(_, _, open)| !open));
}

#[test]
fn the_total_of_a_group_holds_over_lanes_and_tasks() {
    let mut queue = Queue::default();
    for (name, key) in [("p/a", "x"), ("p/b", "x"), ("p/a", "y"), ("p/b", "z")] {
        queue.add(name, "g", key, 0);
    }
    assert_eq!(queue.admit(TWO, &limits("g", None, Some(3)), 9).len(), 3);
    assert!(queue.admit(TWO, &limits("g", None, Some(3)), 9).is_empty());
    assert_eq!(queue.admit(TWO, &limits("g", None, Some(4)), 9).len(), 1);
}

#[test]
fn tasks_of_a_lane_share_its_slots_in_the_order_they_came() {
    let mut queue = Queue::default();
    let order: Vec<u64> = ["p/b", "p/a", "p/a", "p/b"].iter().map(|name| queue.add(name, "g", "x", 0)).collect();
    assert_eq!(queue.admit(TWO, &limits("g", Some(3), None), 9), order[..3]);
}

#[test]
fn a_lane_of_a_group_that_no_task_has_any_more_is_served() {
    let mut queue = Queue::default();
    let old = queue.add("p/a", "old", "x", 0);
    let new = queue.add("p/a", "g", "x", 0);
    assert_eq!(queue.admit(ONE, &limits("g", Some(1), Some(1)), 9), [old, new]);
    queue.add("p/a", "old", "x", 0);
    assert!(queue.admit(ONE, &limits("old", None, Some(1)), 9).is_empty(), "the limits of its own group still apply");
}

#[test]
fn a_pause_lets_nothing_start() {
    let mut queue = Queue::default();
    queue.add("p/a", "g", "x", 0);
    assert!(queue.admit(ONE, &limits("g", Some(0), None), 9).is_empty());
    queue.lanes[0].2 = true;
    assert!(queue.admit(ONE, &limits("g", None, Some(0)), 9).is_empty());
}

#[test]
fn what_is_looked_at_does_not_grow_with_what_waits() {
    let looked_at = |waiting: usize| {
        let mut queue = Queue::default();
        (0..waiting).for_each(|_| _ = queue.add("p/a", "g", "x", 0));
        queue.admit(ONE, &limits("g", Some(32), None), 32);
        queue.seen
    };
    assert_eq!(looked_at(40), looked_at(4_000));
    assert!(looked_at(40) <= 33);
}

#[test]
fn of_a_task_without_room_nothing_starts_and_all_others_do() {
    let mut queue = Queue::default();
    let a: Vec<u64> = ["x", "y", "x", "z"].map(|key| queue.add("p/a", "g", key, 5)).to_vec();
    let b: Vec<u64> = ["x", "w"].map(|key| queue.add("p/b", "g", key, 0)).to_vec();
    // Lane `x` has jobs of both tasks: the quota of one does not hold up the other.
    assert_eq!(queue.admit_within(&[("p/a", 2)], TWO, 9), (vec![a[0], a[1], b[1], b[0]], true));
    assert_eq!(queue.admit_within(&[("p/a", 0)], TWO, 9), (vec![], true));
    assert_eq!(queue.admit_within(&[("p/a", 3)], TWO, 9), (vec![a[3], a[2]], false));
}

#[test]
fn a_lane_that_serves_another_task_takes_no_room() {
    let mut queue = Queue::default();
    let first = queue.add("p/a", "g", "x", 0);
    let second = queue.add("p/b", "g", "x", 0);
    let third = queue.add("p/b", "g", "y", 0);
    assert_eq!(queue.admit_within(&[("p/b", 1)], TWO, 3), (vec![first, third], true));
    assert_eq!(queue.admit_within(&[("p/b", 1)], TWO, 3), (vec![second], true));
}

#[test]
fn a_lane_has_a_free_slot_below_its_limit_and_always_without_one() {
    assert_eq!([0, 1, 2, 3].map(|holders| has_free_slot(holders, Some(2))), [true, true, false, false]);
    assert!(has_free_slot(u32::MAX, None) && !has_free_slot(0, Some(0)));
}

#[test]
fn a_claim_starts_no_more_jobs_than_its_node_has_slots() {
    let mut queue = Queue::default();
    ["x", "y", "x", "y", "x"].into_iter().for_each(|key| _ = queue.add("p/a", "g", key, 0));
    assert_eq!(queue.admit(ONE, &LimitTable::default(), 2), [1, 2]);
    assert_eq!(queue.admit(ONE, &LimitTable::default(), 2), [3, 4]);
    assert_eq!(queue.admit(ONE, &LimitTable::default(), 2), [5]);
}

#[test]
fn a_claim_is_cut_before_its_payloads_exceed_the_bound() {
    let mut queue = Queue::default();
    let half = bounds::CLAIM_BYTES_MAX / 2;
    let [first, second, third] = [half, half, 1].map(|bytes| queue.add_large("x", bytes));
    assert_eq!(queue.admit_large(9), (vec![first, second], true), "two halves fit");
    assert_eq!(queue.admit_large(9), (vec![third], false));
    assert_eq!(queue.admit_large(9), (vec![], false));
}

#[test]
fn the_first_job_of_a_claim_starts_however_large_it_is() {
    let mut queue = Queue::default();
    let large = queue.add_large("x", bounds::CLAIM_BYTES_MAX + 1);
    let small = queue.add_large("x", 1);
    assert_eq!(queue.admit_large(9), (vec![large], true));
    assert_eq!(queue.admit_large(9), (vec![small], false));
}

#[test]
fn no_small_job_overtakes_one_that_is_too_large_for_this_claim() {
    let mut queue = Queue::default();
    let [first, large, small] =
        [("x", 2), ("y", bounds::CLAIM_BYTES_MAX - 1), ("z", 1)].map(|(key, bytes)| queue.add_large(key, bytes));
    assert_eq!(queue.admit_large(9), (vec![first], true));
    assert_eq!(queue.admit_large(9), (vec![large, small], false));
}

#[test]
fn a_lane_takes_a_turn_for_each_job_while_others_wait_and_one_turn_while_it_is_alone() {
    let turns = |keys: &[&str]| {
        let mut queue = Queue::default();
        keys.iter().for_each(|key| _ = queue.add("p/a", "g", key, 0));
        let before = queue.turn;
        assert_eq!(queue.admit(ONE, &LimitTable::default(), 9).len(), keys.len());
        queue.turn - before
    };
    assert_eq!(turns(&["x", "x", "x", "x"]), 1);
    // The last job of `x` starts when `y` has none left: the lane keeps the turn of its second job.
    assert_eq!(turns(&["x", "y", "x", "y", "x"]), 4);
}

#[test]
fn a_lane_is_closed_by_the_claim_that_fills_it_and_stays_open_before() {
    let mut queue = Queue::default();
    (0..3).for_each(|_| _ = queue.add("p/a", "g", "x", 0));
    let table = limits("g", Some(2), None);
    for open in [true, false] {
        assert_eq!(queue.admit(ONE, &table, 1).len(), 1);
        assert_eq!(queue.lanes[0].2, open);
    }
}

#[test]
fn held_lanes_start_nothing_keep_their_turn_and_hold_nobody_up() {
    let mut queue = Queue::default();
    let of_x: Vec<u64> = (0..2).map(|_| queue.add("p/a", "g", "x", 9)).collect();
    let others: Vec<u64> = (0..3).map(|_| queue.add("p/a", "g", "y", 0)).collect();
    let (x, turn) = (queue.lane("g", "x"), queue.lanes[0].1);
    queue.held.push(x);
    assert_eq!(queue.admit(ONE, &LimitTable::default(), 1), others[..1], "the only line that is listed is held");
    assert_eq!((queue.lanes[0].1, queue.lanes[0].2), (turn, false), "it is closed, with the turn that it had");
    let reads = queue.reads;
    assert_eq!(queue.admit(ONE, &LimitTable::default(), 1), others[1..2]);
    assert_eq!(queue.reads - reads, 3, "a closed lane is not read");
    queue.held.clear();
    queue.lanes[0].2 = true;
    assert_eq!(queue.admit(ONE, &LimitTable::default(), 9), [of_x, others[2..].to_vec()].concat());
}

#[test]
fn a_claim_without_slots_and_a_task_that_cannot_start_cost_no_read() {
    let mut queue = Queue::default();
    queue.add("p/a", "g", "x", 0);
    assert_eq!(queue.admit(ONE, &LimitTable::default(), 0), [0u64; 0]);
    assert_eq!(queue.admit(ONE, &limits("g", None, Some(0)), 9), [0u64; 0]);
    assert_eq!(queue.admit_within(&[("p/a", 0)], ONE, 9), (vec![], true));
    assert_eq!(queue.reads, 0);
}

#[test]
fn a_claim_reads_the_jobs_that_it_starts_and_at_most_one_more_of_each_lane() {
    let seen = |free: u32, limits: &LimitTable| {
        let mut queue = Queue::default();
        (0..3).for_each(|_| _ = queue.add("p/a", "g", "y", 0));
        (0..99).for_each(|_| _ = queue.add("p/a", "g", "x", 0));
        let started = queue.admit(ONE, limits, free).len();
        assert!(queue.seen <= started + 2, "{} for {started}", queue.seen);
        (started, queue.seen)
    };
    assert_eq!(seen(1, &LimitTable::default()), (1, 1));
    assert_eq!(seen(10, &LimitTable::default()).0, 10);
    assert_eq!(seen(10, &limits("g", Some(1), None)), (2, 2), "no more of a lane than it has slots");
    assert_eq!(seen(10, &limits("g", None, Some(4))).0, 4);
}

#[test]
fn a_line_whose_jobs_are_all_read_is_not_read_again() {
    let mut queue = Queue::default();
    (0..3).for_each(|_| _ = queue.add("p/a", "g", "x", 0));
    assert_eq!(queue.admit(ONE, &LimitTable::default(), 9).len(), 3);
    assert_eq!(queue.reads, 3, "the lines, the siblings and the jobs");
}

#[test]
fn each_group_has_its_own_total_and_is_counted_once() {
    let mut queue = Queue::default();
    let tasks = [("p/a", "g"), ("p/b", "h"), ("p/c", "g")];
    for _ in 0..3 {
        tasks.iter().zip(["x", "x", "y"]).for_each(|((name, of), key)| _ = queue.add(name, of, key, 0));
    }
    let mut table = limits("g", None, Some(3));
    table.declare(group("h"), crate::limits::Limits { per_key: None, total: Some(2) });
    let started = queue.admit(&tasks, &table, 9);
    let of_h = started.iter().filter(|number| **number % 3 == 2).count();
    assert_eq!((started.len() - of_h, of_h), (3, 2));
    assert_eq!(queue.counted, [group("g"), group("h")]);
    assert_eq!(queue.admit(&tasks, &table, 9), [0u64; 0], "running jobs count");
}

#[test]
fn a_quota_that_is_not_used_up_holds_nothing_back() {
    let mut queue = Queue::default();
    let first = queue.add("p/a", "g", "x", 0);
    assert_eq!(queue.admit_within(&[("p/a", 2), ("p/b", 1)], TWO, 9), (vec![first], false));
    let [second, third] = ["x", "x"].map(|key| queue.add("p/a", "g", key, 0));
    assert_eq!(queue.admit_within(&[("p/a", 2), ("p/b", 1)], TWO, 9), (vec![second, third], true));
}

mod room;
