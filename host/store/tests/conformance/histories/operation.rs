//! One random step of a history. There are few tasks, keys and tokens, so that jobs conflict often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use wharf_core::attempt::AttemptOrigin;
use wharf_core::author::Author;
use wharf_core::bulk::{NewOperation, OperationStep};
use wharf_core::failure::FailureState;
use wharf_core::fingerprint::Fingerprint;
use wharf_core::hold::{HoldLength, HoldReason, HoldScope, NewHold};
use wharf_core::ids::{Group, JobId, NodeId, TaskName};
use wharf_core::job::{Batch, Due, Entry, NewJob, Stream};
use wharf_core::keep::{Keep, KeepRules};
use wharf_core::key::Lane;
use wharf_core::kv::KvChanges;
use wharf_core::lease::{Lease, NodeMark, StartedSuspect};
use wharf_core::lifecycle::Event;
use wharf_core::limits::{Limits, OnConflict, Override};
use wharf_core::node::{LoadedPlugin, Node};
use wharf_core::outcome::{OutcomeKind, Report};
use wharf_core::room::{Room, TaskCost};
use wharf_core::time::Timestamp;
use wharf_store::{Claim, ExpiredJobs, Queue as _};

use super::bulk;
use super::world::World;
use crate::stage::{COUNT, LEASE, SECOND, group, task, trapped, usage};

/// The IDs of durable broadcasts.
pub(super) const BATCHES: [u64; 2] = [7, 8];

/// The digests of plugins.
const DIGESTS: [&str; 5] = ["d1", "d2", "d3", "d4", "d5"];

/// The plugins that have values.
pub(super) const PLUGINS: [&str; 2] = ["words", "thumbnail"];

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Insert(Vec<NewJob>),
    InsertWithChanges(Vec<NewJob>, Arc<KvChanges>),
    Claim(Claim),
    Record(Vec<(JobId, Event)>),
    Renew(Vec<Lease>, Duration),
    Mark(NodeId, NodeMark),
    Reclaim(u32),
    DeleteExpired(ExpiredJobs),
    SetOverride(Override, Author),
    ChangeJob(JobId, Event, Author),
    DeleteActs(Timestamp, u32),
    SetHold(NewHold),
    ReleaseHold(HoldScope, Author),
    DeleteEndedHolds(u32),
    StartBulk(Box<NewOperation>),
    TakeStep(OperationStep),
    CancelBulk(JobId, Author),
    DeleteEndedOperations(Timestamp, u32),
    SetFailureState(Fingerprint, FailureState, Author),
    DeleteFailures(Timestamp, u32),
    Announce(Node),
    Pass(Duration),
    Crash,
}

pub(super) fn one_of<T: Clone>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())].clone()
}

impl Operation {
    pub(super) fn draw(rng: &mut Rng, world: &World) -> Operation {
        match rng.u32(..107) {
            0..2 => {
                let changes = changes(rng).unwrap_or_else(|| Arc::new(KvChanges::new(PLUGINS[0].parse().unwrap())));
                Operation::InsertWithChanges((0..rng.usize(..3)).map(|_| new_job(rng, world)).collect(), changes)
            }
            2..4 => Operation::SetHold(new_hold(rng)),
            4..6 => Operation::ReleaseHold(hold_scope(rng), author(rng)),
            6 => Operation::DeleteEndedHolds(rng.u32(1..4)),
            7..10 => {
                let fingerprint = match world.failures.is_empty() || rng.u32(..10) == 0 {
                    true => "f1:0000000000000001".parse().unwrap(),
                    false => one_of(rng, &world.failures),
                };
                let resolved = FailureState::Resolved;
                let state = one_of(rng, &[resolved, resolved, FailureState::Ignored, FailureState::Open]);
                Operation::SetFailureState(fingerprint, state, author(rng))
            }
            10 => Operation::DeleteFailures(world.oracle.now() - rng.u32(..20) * SECOND, rng.u32(1..3)),
            11..13 => Operation::Announce(node(rng, world)),
            13..25 => Operation::Insert((0..rng.usize(1..4)).map(|_| new_job(rng, world)).collect()),
            25..50 => Operation::Claim(claim(rng, world)),
            50..53 => {
                let event = one_of(
                    rng,
                    &[Event::CancelRequested, Event::RetryRequested { delay: Duration::ZERO, attempts: 1 }],
                );
                Operation::ChangeJob(job_id(rng, world), event, author(rng))
            }
            53..74 => Operation::Record((0..rng.usize(1..4)).map(|_| event(rng, world)).collect()),
            74..79 => {
                let leases = (0..rng.usize(1..4)).filter_map(|_| lease(rng, world)).collect();
                // Not longer than the shortest length that a claim uses.
                Operation::Renew(leases, SECOND)
            }
            79..83 => Operation::Reclaim(rng.u32(1..4)),
            83..86 => Operation::DeleteExpired(expired_jobs(rng, world.oracle.now())),
            86..88 => Operation::SetOverride(override_(rng), author(rng)),
            88 => Operation::DeleteActs(world.oracle.now() - rng.u32(..40) * SECOND, rng.u32(1..8)),
            89..92 => mark(rng, world),
            100 => bulk::start(rng, world),
            101..105 => bulk::step_or_start(rng, world),
            105 => bulk::cancel(rng, world),
            106 => Operation::DeleteEndedOperations(world.oracle.now() - rng.u32(..10) * SECOND, rng.u32(1..3)),
            92..98 => Operation::Pass(rng.u32(..12) * SECOND / 2),
            _ => Operation::Crash,
        }
    }
}

fn new_job(rng: &mut Rng, world: &World) -> NewJob {
    let (task, group) = one_of(rng, &world.tasks);
    let key = one_of(rng, &["", "a", "a", "b", "c"]);
    let now = world.oracle.now();
    NewJob {
        id: world.oracle.next_id().unwrap(),
        task,
        lane: Lane { group, key: (!key.is_empty()).then(|| key.parse().unwrap()) },
        payload: vec![rng.u8(..); rng.usize(..3)].into(),
        priority: one_of(rng, &[0, 0, 0, 0, 5, -5]),
        due: one_of(
            rng,
            &[None, None, None, Some(Due::In(3 * SECOND)), Some(Due::At(now - SECOND)), Some(Due::At(now + LEASE))],
        ),
        token: one_of(rng, &[None, None, None, Some("one"), Some("two")]).map(|token| token.parse().unwrap()),
        on_conflict: one_of(
            rng,
            &[
                OnConflict::Wait,
                OnConflict::Wait,
                OnConflict::Discard,
                OnConflict::ReplaceWaiting,
                OnConflict::CancelRunning,
            ],
        ),
        batch: one_of(rng, &[None, None, None, Some(BATCHES[0]), Some(BATCHES[1])]).map(batch),
        lineage: Default::default(),
        tick: one_of(rng, &[None, None, Some("1000000,,0"), Some("2000000,1000000,3")])
            .map(|tick| Box::new(tick.parse().unwrap())),
    }
}

fn batch(number: u64) -> Batch {
    Batch { id: JobId::from_number(number).unwrap(), topic: format!("batch.{number}").parse().unwrap() }
}

/// Returns a job ID; mostly one that exists.
fn job_id(rng: &mut Rng, world: &World) -> JobId {
    if world.ids.is_empty() || rng.u32(..20) == 0 { world.oracle.next_id().unwrap() } else { one_of(rng, &world.ids) }
}

fn claim(rng: &mut Rng, world: &World) -> Claim {
    let tasks: Vec<_> = world.tasks.iter().filter(|_| rng.u32(..4) > 0).cloned().collect();
    let few = |(task, _): &(TaskName, _)| (rng.u32(..5) == 0).then(|| (task.clone(), rng.u32(..4)));
    let task_quotas = world.tasks.iter().filter_map(few).collect();
    Claim {
        node: NodeId(rng.u64(..3) << 62),
        tasks: tasks.into(),
        declared: Arc::clone(&world.declared[usize::from(rng.u32(..12) == 0)]),
        free: rng.u32(..6),
        room: room(rng),
        costs: Arc::new(world.tasks.iter().filter_map(|task| task_cost(rng, task)).collect()),
        task_quotas,
        lease: one_of(rng, &[SECOND, 5 * SECOND, LEASE]),
    }
}

/// Returns the room of a node that has little of it; sometimes without bounds.
fn room(rng: &mut Rng) -> Room {
    let mut some = |sandboxes, bytes| TaskCost { sandboxes: rng.u32(..=sandboxes), bytes: rng.u64(..=bytes) };
    let (free, overtaking) = (some(5, 100), some(2, 50));
    let total = TaskCost { sandboxes: 6, bytes: 120 };
    if rng.u32(..2) == 0 { Room::UNLIMITED } else { Room { total, free, overtaking } }
}

fn task_cost(rng: &mut Rng, (task, _): &(TaskName, Group)) -> Option<(TaskName, TaskCost)> {
    let cost = TaskCost { sandboxes: rng.u32(..5), bytes: rng.u64(..60) };
    (rng.u32(..3) == 0).then(|| (task.clone(), cost))
}

/// Returns a lease; mostly one that is current.
fn lease(rng: &mut Rng, world: &World) -> Option<Lease> {
    let from = if rng.u32(..3) > 0 && !world.running.is_empty() { &world.running } else { &world.leases };
    (!from.is_empty()).then(|| one_of(rng, from))
}

fn event(rng: &mut Rng, world: &World) -> (JobId, Event) {
    if rng.u32(..5) == 0 {
        let priority = rng.i32(-5..=5);
        return (
            job_id(rng, world),
            one_of(
                rng,
                &[
                    Event::CancelRequested,
                    Event::Replaced,
                    Event::RetryRequested { delay: Duration::ZERO, attempts: 1 },
                    Event::RetryRequested { delay: 2 * SECOND, attempts: 1 },
                    Event::RetryRequested { delay: Duration::ZERO, attempts: 2 },
                    Event::RunRequested,
                    Event::PriorityChanged { priority },
                ],
            ),
        );
    }
    let Some(lease) = lease(rng, world) else { return (job_id(rng, world), Event::CancelRequested) };
    let attempt = if rng.u32(..20) == 0 { lease.attempt + 1 } else { lease.attempt };
    let entries = vec![
        Entry::Chunk(vec![rng.u8(..); rng.usize(..4)].into()),
        Entry::Log { stream: one_of(rng, &[Stream::Stdout, Stream::Stderr]), line: "line".into() },
        Entry::LogDropped { lines: rng.u64(..1000) },
        Entry::Progress { fraction: rng.f32(), note: "on the way".to_owned() },
    ];
    let later = one_of(rng, &[Duration::ZERO, 2 * SECOND]);
    let event = match rng.u32(..12) {
        0 | 1 => Event::Wrote { attempt, entries },
        2..5 => {
            let children = (0..rng.usize(..3)).map(|_| new_job(rng, world)).collect();
            let (output, changes) = (vec![rng.u8(..); rng.usize(..3)].into(), changes(rng));
            Event::Succeeded { attempt, output, children, changes, usage: usage() }
        }
        5 => Event::Failed {
            attempt,
            report: report(rng),
            retry_in: Some(later),
            usage: usage(),
            origin: Some(origin(rng)),
        },
        6 => {
            let origin = (rng.u32(..4) > 0).then(|| origin(rng));
            Event::Failed { attempt, report: report(rng), retry_in: None, usage: usage(), origin }
        }
        7 => Event::Released {
            attempt,
            report: trapped(),
            claimable_in: later,
            usage: rng.bool().then(usage),
            origin: None,
        },
        8 => Event::Cancelled { attempt, usage: usage(), origin: None },
        9 => Event::LeaseExpired { attempt, mark: NodeMark { draining: rng.bool(), suspect: None } },
        10 => Event::Claimed { lease },
        _ => Event::CancelRequested,
    };
    (lease.job, event)
}

fn origin(rng: &mut Rng) -> Arc<AttemptOrigin> {
    Arc::new(AttemptOrigin::new("here", one_of(rng, &["1.0", "1.1"]), one_of(rng, &DIGESTS)))
}

fn report(rng: &mut Rng) -> Report {
    let text = one_of(rng, &["no order 17", "no order 18\u{0}", "no customer 17"]).to_owned();
    one_of(rng, &[trapped(), Report { kind: OutcomeKind::Failed, text }])
}

/// Returns a node with digests of a plugin; nothing else of the node matters here. Few digests come with each node, so that some
/// are new after a failure was resolved.
fn node(rng: &mut Rng, world: &World) -> Node {
    let plugins = DIGESTS.iter().filter(|_| rng.u32(..4) == 0).map(|digest| LoadedPlugin {
        plugin: PLUGINS[0].parse().unwrap(),
        version: "1.0".to_owned(),
        digest: (*digest).to_owned(),
        topics: Vec::new(),
        tasks: None,
    });
    Node {
        id: NodeId(1),
        name: "here".to_owned(),
        version: "0.2.0".to_owned(),
        started: world.oracle.now(),
        seen: world.oracle.now(),
        capacity: 1,
        running: 0,
        draining: false,
        stopping: false,
        settings: None,
        memory_budget: None,
        plugins: plugins.collect(),
        pending: Vec::new(),
    }
}

/// Returns a step that marks a node; mostly one that runs a job.
fn mark(rng: &mut Rng, world: &World) -> Operation {
    let lease = lease(rng, world);
    let node = lease.map_or(NodeId(rng.u64(..3) << 62), |lease| lease.node);
    let begun = |lease: Lease| StartedSuspect { job: lease.job, attempt: lease.attempt, alone: rng.bool() };
    let suspect = lease.map(begun).filter(|begun| begun.attempt % 2 == 1 || begun.alone);
    Operation::Mark(node, NodeMark { draining: rng.u32(..3) == 0, suspect })
}

/// Returns changes of values. There are few plugins and keys, so that changes conflict often.
fn changes(rng: &mut Rng) -> Option<Arc<KvChanges>> {
    let mut changes = KvChanges::new(one_of(rng, &PLUGINS).parse().unwrap());
    for _ in 0..rng.usize(..4) {
        let value = (rng.u32(..3) > 0).then(|| vec![rng.u8(..); rng.usize(..4)].into());
        changes.put(one_of(rng, &["a", "a/1", "a/2", "b", "\u{0}é"]).parse().unwrap(), value).unwrap();
    }
    (rng.u32(..3) > 0).then(|| Arc::new(changes))
}

fn hold_scope(rng: &mut Rng) -> HoldScope {
    let scopes = [
        "all",
        "plugin:words",
        "task:words/list",
        "task:thumbnail/make",
        "group:shared",
        "key:a",
        "key:b",
        "group:shared key:a",
        "group:thumbnail/make key:a",
        "group:shared key:c",
    ];
    one_of(rng, &scopes).parse().unwrap()
}

fn new_hold(rng: &mut Rng) -> NewHold {
    let lengths =
        [None, Some(HoldLength::For(2 * SECOND)), Some(HoldLength::For(5 * SECOND)), Some(HoldLength::For(LEASE))];
    NewHold {
        scope: hold_scope(rng),
        length: one_of(rng, &lengths),
        reason: one_of(rng, &["", "why"]).parse::<HoldReason>().unwrap(),
        by: author(rng),
    }
}

pub(super) fn author(rng: &mut Rng) -> Author {
    let authors = [Author::anyone(), Author::token("ann"), Author::token("none").at_address("10.0.0.1")];
    one_of(rng, &authors)
}

fn override_(rng: &mut Rng) -> Override {
    let numbers = [None, None, Some(0), Some(1), Some(2), Some(4)];
    let limits = Limits { per_key: one_of(rng, &numbers), total: one_of(rng, &numbers) };
    let key = one_of(rng, &[None, Some("a"), Some("b")]).map(|key| key.parse().unwrap());
    Override {
        group: group(one_of(rng, &["shared", "thumbnail/make"])),
        limits: Limits { total: limits.total.filter(|_| key.is_none()), ..limits },
        key,
    }
}

/// Looks through all finished jobs, or those of the last seconds, by rules of which each is as likely to be long as short.
fn expired_jobs(rng: &mut Rng, now: Timestamp) -> ExpiredJobs {
    let keep = |rng: &mut Rng| Keep {
        succeeded: rng.u32(..20) * SECOND,
        failed: rng.u32(..40) * SECOND,
        cancelled: rng.u32(..40) * SECOND,
    };
    let of_all = keep(rng);
    let of_tasks = if rng.bool() { [(task(COUNT), keep(rng))].into() } else { BTreeMap::new() };
    let from = if rng.bool() { Timestamp::ZERO } else { now - rng.u32(..40) * SECOND };
    let (rules, before) = (Arc::new(KeepRules { of_all, of_tasks }), now - rng.u32(..5) * SECOND);
    ExpiredJobs { rules, from: (from, None), before, max: rng.u32(1..8) }
}
