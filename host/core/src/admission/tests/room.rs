//! Tests which jobs start where attempts differ in what they take.

use super::*;

/// A node whose attempts end when a test says so.
struct Node {
    queue: Queue,
    total: TaskCost,
    costs: HashMap<TaskName, TaskCost>,
    /// What each running attempt takes, and true if it overtook one; the oldest first.
    running: VecDeque<(u64, TaskCost, bool)>,
}

const TASKS: &[(&str, &str)] = &[("p/light", "light"), ("p/heavy", "heavy")];

fn sandboxes(sandboxes: u32) -> TaskCost {
    TaskCost { sandboxes, bytes: 0 }
}

impl Node {
    fn new(total: TaskCost, heavy: TaskCost) -> Node {
        let costs = HashMap::from([(task("p/heavy"), heavy)]);
        Node { queue: Queue::default(), total, costs, running: VecDeque::new() }
    }

    fn light(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.queue.add("p/light", "light", "x", 0)).collect()
    }

    fn heavy(&mut self) -> u64 {
        self.queue.add("p/heavy", "heavy", "x", 0)
    }

    fn room(&self) -> Room {
        let sum = |overtook: bool| {
            let taken = self.running.iter().filter(|(.., overtakes)| *overtakes || !overtook);
            taken.fold(TaskCost::NOTHING, |sum, (_, cost, _)| sum.plus(*cost))
        };
        Room { total: self.total, free: self.total.minus(sum(false)), overtaking: sum(true) }
    }

    fn claim(&mut self) -> (Vec<u64>, Admitted) {
        let tasks: Vec<_> = TASKS.iter().map(|(name, of)| (task(name), group(of))).collect();
        let room = self.room();
        let budget = ClaimBudget { tasks: &tasks, free: 99, room, costs: &self.costs, task_quotas: &[] };
        self.queue.started.clear();
        let known: HashMap<u64, TaskName> =
            self.queue.jobs.iter().map(|(_, task, ready)| (ready.id.number(), task.clone())).collect();
        let Ok(admitted) = admit(&mut self.queue, &budget, &LimitTable::default());
        let started = self.queue.started.clone();
        let first_overtaker = started.len() - admitted.overtook as usize;
        for (place, number) in started.iter().enumerate() {
            let cost = self.costs.get(&known[number]).copied().unwrap_or(TaskCost::ORDINARY);
            self.running.push_back((*number, room.bounded(cost), place >= first_overtaker));
        }
        (started, admitted)
    }

    /// Ends an attempt.
    fn end(&mut self, number: u64) {
        self.running.retain(|(running, ..)| *running != number);
    }

    /// Ends the oldest attempt, over and over, while light jobs never cease to come. Returns how many have ended until
    /// the job starts.
    fn ends_until_start(&mut self, number: u64) -> usize {
        for ended in 0..1000 {
            let waiting = self.queue.jobs.len();
            self.light(40_usize.saturating_sub(waiting));
            let (started, _) = self.claim();
            if started.contains(&number) {
                return ended;
            }
            self.running.pop_front();
        }
        panic!("it starves");
    }
}

#[test]
fn a_job_that_does_not_fit_holds_up_nobody_and_keeps_its_turn() {
    let mut node = Node::new(sandboxes(8), sandboxes(6));
    let first = node.light(4);
    assert_eq!(node.claim().0, first);
    let heavy = node.heavy();
    let others = node.light(6);
    // Four are free, and six are needed. The first one has an older turn and overtakes nobody.
    let (started, admitted) = node.claim();
    assert_eq!((started, admitted.short_of_room, admitted.overtook), (others[..2].to_vec(), true, 1));
    first[..3].iter().for_each(|number| node.end(*number));
    let (started, admitted) = node.claim();
    assert_eq!((started, admitted.overtook), (vec![others[2]], 1), "two of eight are all that it leaves");
    [first[3], others[0]].into_iter().for_each(|number| node.end(number));
    let (started, admitted) = node.claim();
    assert_eq!((started, admitted.overtook), (vec![heavy], 0), "before any other, since it kept its turn");
}

#[test]
fn a_job_that_needs_much_starts_although_small_ones_never_cease() {
    for need in 2..=16 {
        let mut node = Node::new(sandboxes(16), sandboxes(need));
        node.light(40);
        assert_eq!(node.claim().0.len(), 16);
        let heavy = node.heavy();
        let ends = node.ends_until_start(heavy);
        assert!(ends <= 40, "{need} of 16: {ends} ended before");
    }
}

#[test]
fn while_most_of_the_room_is_held_half_of_the_rest_goes_on() {
    let mut node = Node::new(sandboxes(16), sandboxes(9));
    let sleeping = node.light(10);
    assert_eq!(node.claim().0, sleeping);
    let heavy = node.heavy();
    for _ in 0..50 {
        let others = node.light(3);
        assert_eq!(node.claim().0, others, "three of six");
        others.iter().for_each(|number| node.end(*number));
    }
    sleeping[..3].iter().for_each(|number| node.end(*number));
    assert_eq!(node.claim().0, [heavy]);
}

#[test]
fn a_job_that_needs_more_than_there_is_runs_alone() {
    let mut node = Node::new(sandboxes(3), sandboxes(17));
    let light = node.light(1);
    node.claim();
    let heavy = node.heavy();
    let other = node.light(1);
    let (started, admitted) = node.claim();
    assert_eq!((started, admitted.short_of_room), (other.clone(), true), "one may always overtake");
    [light[0], other[0]].into_iter().for_each(|number| node.end(number));
    let others = node.light(1);
    assert_eq!(node.claim().0, [heavy]);
    let (started, admitted) = node.claim();
    assert_eq!((started, admitted.short_of_room), (vec![], true));
    node.end(heavy);
    assert_eq!(node.claim().0, others);
}

#[test]
fn bytes_count_as_sandboxes_do_and_what_waits_for_them_leaves_the_sandboxes() {
    let total = TaskCost { sandboxes: 100, bytes: 100 };
    let mut node = Node::new(total, TaskCost { sandboxes: 1, bytes: 60 });
    let first = node.heavy();
    let second = node.heavy();
    let light = node.light(30);
    let (started, admitted) = node.claim();
    assert_eq!(started.len(), 31);
    assert!(started.contains(&first) && admitted.short_of_room);
    assert!(light.iter().all(|number| started.contains(number)), "those that take no bytes are not held up");
    node.end(first);
    assert_eq!(node.claim().0, [second]);
}

#[test]
fn two_tasks_of_one_lane_do_not_hold_up_each_other_either() {
    let mut node = Node::new(sandboxes(8), sandboxes(8));
    let first = node.light(1);
    node.claim();
    let heavy = node.queue.add("p/heavy", "light", "x", 0);
    let others = node.light(5);
    let (started, _) = node.claim();
    assert_eq!(started, others[..1]);
    assert_eq!(node.queue.lanes[0].1, 2, "the lane keeps the turn of the job that did not fit");
    [first[0], others[0]].into_iter().for_each(|number| node.end(number));
    assert_eq!(node.claim().0, [heavy]);
}

#[test]
fn a_task_that_does_not_fit_is_looked_at_once_however_many_keys_it_has() {
    let looked_at = |keys: usize| {
        let mut node = Node::new(sandboxes(64), sandboxes(9));
        node.light(60);
        node.claim();
        (0..keys).for_each(|key| _ = node.queue.add("p/heavy", "heavy", &format!("k{key}"), 0));
        node.light(1);
        node.queue.seen = 0;
        assert_eq!(node.claim().0.len(), 1);
        node.queue.seen
    };
    assert_eq!(looked_at(2), looked_at(200));
}

#[test]
fn a_claim_that_uses_up_the_room_says_so() {
    let mut node = Node::new(sandboxes(4), sandboxes(2));
    node.light(4);
    let (_, admitted) = node.claim();
    assert_eq!((admitted.taken, admitted.short_of_room, admitted.overtook), (4, true, 0));
    let (_, admitted) = node.claim();
    assert_eq!((admitted.taken, admitted.short_of_room), (0, true));
}
