//! Claims: delayed jobs that are due become ready, then `wharf_core::admission` chooses among the lines.

use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::{Row, params};
use smallvec::SmallVec;
use wharf_core::admission::{Admitted, LaneId, Line, QueueView, Ready, admit};
use wharf_core::bounds;
use wharf_core::ids::{Group, TaskName};
use wharf_core::job::{Batch, JobStatus, LeasedJob, State};
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;
use wharf_core::limits::LimitTable;
use wharf_core::retry::FailureCount;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::tick::JobTick;
use wharf_core::time::Timestamp;

use super::lanes::{self, LaneNo, RunningJob};
use super::large_values::PAYLOADS;
use super::ledger::SqliteLedger;
use super::rows::{batch, bytes, priority, rank, timestamp};
use super::unsynced_claims;
use crate::columns::{self, DamagedData, job_id, key, signed, timestamp_us, unsigned};
use crate::store::{Claim, Claimed, wake_at};

impl SqliteLedger<'_> {
    /// Leases jobs that may start now.
    pub(super) fn claim(&mut self, claim: &Claim, now: Timestamp) -> rusqlite::Result<Claimed> {
        self.declare(&claim.declared);
        let limits = self.limits()?;
        self.reopen_all_if_changed(&limits);
        self.open_ended_holds(now)?;
        self.promote(now)?;
        let wake_at = wake_at(self.next_due()?.map(|due| due.max(now)), self.holds()?.next_end(now));
        let claim = &*claim.without_held_tasks(self.holds()?, now);

        let id = self.last_claim + 1;
        let mut context =
            ClaimContext { ledger: self, claim, id, limits: &limits, now, heads: HashMap::new(), leased: Vec::new() };
        let admitted = admit(&mut context, &claim.offer(), &limits)?;
        let ClaimContext { heads, leased, .. } = context;
        self.remove_leased(heads)?;
        if !leased.is_empty() {
            self.last_claim = id;
            let mut insert = self.conn.prepare_cached(
                "INSERT INTO claims (id, node, claimed_at, lease_expires_at, jobs) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            let jobs = unsynced_claims::encode_jobs(leased.iter().map(|leased| &leased.lease));
            let (claimed_at, expires_at) = (timestamp_us(now), timestamp_us(now + claim.lease));
            insert.execute(params![id, signed(claim.node.0), claimed_at, expires_at, jobs])?;
        }
        let wake_at = if admitted.cut { Some(now) } else { wake_at };
        let Admitted { quota_reached, short_of_room, overtook, .. } = admitted;
        Ok(Claimed { leased, wake_at, quota_reached, short_of_room, overtook })
    }

    /// Makes at most `PROMOTE_BATCH` delayed jobs ready that are due: one claim must not pay for all that became due at once.
    fn promote(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare_cached(
            "SELECT id, limit_group, key, task, priority, due_at FROM jobs WHERE state = 0 AND due_at <= ?1
             ORDER BY due_at, id LIMIT ?2",
        )?;
        let found = find.query_map(params![timestamp_us(now), bounds::PROMOTE_BATCH], |row| {
            Ok(((row.get(0)?, row.get(5)?), (row.get(1)?, row.get::<_, String>(2)?), (row.get(3)?, row.get(4)?)))
        })?;
        let due: Vec<((i64, i64), (i64, String), (i64, i32))> = found.collect::<rusqlite::Result<_>>()?;
        drop(find);
        for ((id, due_at), (group, key_text), (task, priority)) in due {
            let lane = Lane { group: self.names.group(self.conn, group)?, key: key(&key_text)? };
            let lane = self.lanes.find_or_add(&lane);
            self.add_ready((lane, task, priority), due_at, id)?;
            self.conn.prepare_cached("UPDATE jobs SET state = 1 WHERE id = ?1")?.execute([id])?;
        }
        Ok(())
    }

    /// Returns when the next delayed job is due.
    fn next_due(&self) -> rusqlite::Result<Option<Timestamp>> {
        let mut next = self.conn.prepare_cached("SELECT due_at FROM jobs WHERE state = 0 ORDER BY due_at LIMIT 1")?;
        let mut rows = next.query([])?;
        rows.next()?.map(|row| timestamp(row, "due_at")).transpose()
    }

    /// Removes the leased jobs from the ready ones: in each line they are the first.
    fn remove_leased(&mut self, heads: HashMap<(LaneNo, i64), LineHead>) -> rusqlite::Result<()> {
        let mut whole: Vec<(lanes::Line, LaneNo)> = Vec::new();
        for ((lane, task), head) in heads {
            let (Some(line), Some(last)) = (self.lanes.line(lane, task), head.last_leased()) else { continue };
            if head.leased as u64 == line.count {
                whole.push((line, lane));
                continue;
            }
            let last = params![line.number, rank(last.priority), timestamp_us(last.due), signed(last.id.number())];
            check_removed(self.statements.delete_first.prepared()?.execute(last)?, head.leased)?;
            self.shrink_line(lane, line, head.leased as u64)?;
        }
        whole.sort_unstable_by_key(|(line, _)| line.number);
        for run in consecutive(&whole, |(line, _)| line.number) {
            let mut delete = self.conn.prepare_cached("DELETE FROM ready WHERE line BETWEEN ?1 AND ?2")?;
            let jobs: u64 = run.iter().map(|(line, _)| line.count).sum();
            check_removed(delete.execute([run[0].0.number, run[run.len() - 1].0.number])?, jobs as usize)?;
            drop(delete);
            for (line, lane) in run {
                self.shrink_line(*lane, *line, line.count)?;
            }
        }
        Ok(())
    }
}

/// Splits sorted lines into runs of consecutive numbers. One statement serves a whole run, and lanes that are added in one
/// transaction have consecutive lines.
fn consecutive<T>(sorted: &[T], number: impl Fn(&T) -> i64) -> impl Iterator<Item = &[T]> {
    sorted.chunk_by(move |one, next| number(one) + 1 == number(next))
}

fn check_removed(removed: usize, leased: usize) -> rusqlite::Result<()> {
    if removed == leased {
        return Ok(());
    }
    let text = format_args!("{leased} jobs of a line were leased, but it had {removed} of them");
    Err(DamagedData::inconsistent(text).into())
}

/// A claim in progress.
struct ClaimContext<'l, 'c> {
    ledger: &'l mut SqliteLedger<'c>,
    claim: &'l Claim,
    /// The id of the row in `claims` that this claim writes.
    id: i64,
    limits: &'l Arc<LimitTable>,
    now: Timestamp,
    /// The heads of the lines that were read, by lane and task.
    heads: HashMap<(LaneNo, i64), LineHead>,
    leased: Vec<LeasedJob>,
}

/// The first jobs of a line, as far as they were read.
#[derive(Default)]
struct LineHead {
    jobs: Vec<ReadyJob>,
    /// The number of leased jobs; they are the first of `jobs`.
    leased: usize,
}

impl LineHead {
    fn last_leased(&self) -> Option<Ready> {
        self.jobs[..self.leased].last().map(|job| job.ready)
    }
}

/// A ready job, with all that its lease needs.
struct ReadyJob {
    ready: Ready,
    attempt: u32,
    failures: FailureCount,
    crashes: u32,
    batch: Option<Batch>,
    tick: Option<Box<JobTick>>,
    generation: u32,
    /// `None` if it is too large to be read before the job is leased.
    payload: Option<SharedBytes>,
}

/// Jobs that are read of a line at once, if that many may start, where lanes take turns.
const READ_AHEAD: u32 = 16;

impl ClaimContext<'_, '_> {
    fn line(&self, no: LaneNo, line: lanes::Line, task: &TaskName) -> Line {
        let SqliteLedger { lanes, holds, .. } = &*self.ledger;
        let lane = lanes.lane(no);
        Line {
            lane_id: LaneId(u64::from(no.0)),
            task: task.clone(),
            top: line.top,
            turn: lanes.turn(no),
            holders: lanes.holders(no).len() as u32,
            held: holds.as_ref().is_some_and(|holds| holds.is_on_lane(&lane, self.now)),
            lane,
        }
    }

    /// Returns the ledger's numbers of a line: its lane and its task.
    fn numbers(&mut self, lane: LaneId, task: &TaskName) -> rusqlite::Result<(LaneNo, i64)> {
        Ok((LaneNo(lane.0 as u32), self.ledger.names.number(self.ledger.conn, task.as_str())?))
    }

    /// Reads up to `max` more jobs of a line, after those that were read of it.
    fn read(&mut self, (lane, task): (LaneNo, i64), max: usize) -> rusqlite::Result<()> {
        let Some(line) = self.ledger.lanes.line(lane, task) else { return Ok(()) };
        let head = self.heads.entry((lane, task)).or_default();
        let find = self.ledger.statements.select_first.prepared()?;
        for job in find.query_map(params![line.number, max as i64, head.jobs.len() as i64], ready_job)? {
            head.jobs.push(job?);
        }
        Ok(())
    }

    /// Reads the jobs of the lines that have only one.
    fn read_singles(&mut self, lanes: &[LaneNo], task: i64) -> rusqlite::Result<()> {
        let line = |no: &LaneNo| self.ledger.lanes.line(*no, task).map(|line| (line, *no));
        let is_single = |(line, no): &(lanes::Line, LaneNo)| line.count == 1 && !self.heads.contains_key(&(*no, task));
        let mut singles: Vec<(lanes::Line, LaneNo)> = lanes.iter().filter_map(line).filter(is_single).collect();
        singles.sort_unstable_by_key(|(line, _)| line.number);
        for run in consecutive(&singles, |(line, _)| line.number) {
            let mut find = self.ledger.conn.prepare_cached(
                "SELECT ready.id, rank, ready.due_at, payload_bytes, attempt, failures, crashes, batch, topic, payload,
                        generation, tick, line
                 FROM ready CROSS JOIN jobs ON jobs.id = ready.id WHERE line BETWEEN ?1 AND ?2 ORDER BY line",
            )?;
            let (first, last) = (run[0].0.number, run[run.len() - 1].0.number);
            for job in find.query_map([first, last], |row| Ok((row.get::<_, i64>(12)?, ready_job(row)?)))? {
                let (line, job) = job?;
                let head = LineHead { jobs: vec![job], leased: 0 };
                self.heads.insert((run[(line - first) as usize].1, task), head);
            }
        }
        Ok(())
    }

    /// Reads a payload that is not in the job's own row.
    fn payload(&self, ready: &Ready) -> rusqlite::Result<SharedBytes> {
        let payload = PAYLOADS.read(self.ledger.conn, signed(ready.id.number()), ready.bytes)?;
        Ok(payload.unwrap_or_default())
    }
}

impl QueueView for ClaimContext<'_, '_> {
    type Error = rusqlite::Error;

    fn lines(&mut self, task: &TaskName, max: u32) -> rusqlite::Result<Vec<Line>> {
        // A task that no job was ever enqueued for has no number.
        let Some(number) = self.ledger.names.find(self.ledger.conn, task.as_str())? else { return Ok(Vec::new()) };
        let lanes: Vec<LaneNo> = self.ledger.lanes.open_lines(number, max as usize).collect();
        self.read_singles(&lanes, number)?;
        let line = |no| self.ledger.lanes.line(no, number).map(|line| self.line(no, line, task));
        Ok(lanes.into_iter().filter_map(line).collect())
    }

    fn siblings(&mut self, lane: LaneId, task: &TaskName, tasks: &[TaskName]) -> rusqlite::Result<Vec<Line>> {
        let no = LaneNo(lane.0 as u32);
        let lines: SmallVec<[lanes::Line; 2]> = self.ledger.lanes.lines(no).collect();
        if lines.len() < 2 {
            return Ok(Vec::new());
        }
        let mut siblings = Vec::new();
        for line in lines {
            let other = self.ledger.names.task(self.ledger.conn, line.task)?;
            if other != *task && tasks.contains(&other) {
                siblings.push(self.line(no, line, &other));
            }
        }
        Ok(siblings)
    }

    fn heads(&mut self, lane: LaneId, task: &TaskName, max: u32) -> rusqlite::Result<Vec<Ready>> {
        let (lane, task) = self.numbers(lane, task)?;
        let head = self.heads.entry((lane, task)).or_default();
        let known = head.jobs.len() - head.leased;
        if known < max as usize {
            // Where lanes take turns, admission requests one job at a time; as many as the lane has free slots are read at once.
            let lanes = &self.ledger.lanes;
            let slots = self.limits.per_key(&lanes.lane(lane)).unwrap_or(u32::MAX);
            let free = slots.saturating_sub(lanes.holders(lane).len() as u32).clamp(1, READ_AHEAD);
            self.read((lane, task), (max as usize - known).max(free as usize))?;
        }
        let head = self.heads.entry((lane, task)).or_default();
        Ok(head.jobs[head.leased..].iter().take(max as usize).map(|job| job.ready).collect())
    }

    fn group_holders(&mut self, group: &Group) -> rusqlite::Result<u32> {
        let max = self.limits.of(group).total.unwrap_or(u32::MAX);
        let lanes = &self.ledger.lanes;
        let of_group = lanes.all_running().filter(|(_, job)| lanes.group(job.lane) == group);
        Ok(of_group.take(max as usize).count() as u32)
    }

    fn next_turn(&mut self) -> rusqlite::Result<u64> {
        Ok(self.ledger.lanes.next_turn())
    }

    fn lease(&mut self, line: &Line, ready: &Ready) -> rusqlite::Result<()> {
        let (lane, task) = self.numbers(line.lane_id, &line.task)?;
        let head = self.heads.entry((lane, task)).or_default();
        let Some(job) = head.jobs.get_mut(head.leased).filter(|job| job.ready.id == ready.id) else {
            return Err(DamagedData::inconsistent(format_args!("job {} is not the first of its line", ready.id)).into());
        };
        head.leased += 1;
        let ReadyJob { attempt, failures, crashes, generation, .. } = *job;
        let (batch, tick, payload) = (job.batch.take(), job.tick.take(), job.payload.take());
        let payload = match payload {
            Some(payload) => payload,
            None => self.payload(ready)?,
        };
        let state = State::Waiting { due: ready.due };
        let before = JobStatus { state, attempt, failures, crashes, cancel_requested: false };
        let until = self.now + self.claim.lease;
        let lease = Lease { job: ready.id, attempt: before.attempt + 1, node: self.claim.node, until };
        let status = before.after(&Event::Claimed { lease }, self.now).map_err(|refusal| {
            DamagedData::inconsistent(format_args!("the ready job {} could not be claimed: {refusal}", ready.id))
        })?;
        let (priority, started_at, claim) = (ready.priority, self.now, Some(self.id));
        let running = RunningJob { status, lane, task, priority, started_at, claim };
        self.ledger.lanes.set_running(ready.id, Some(running));
        self.ledger.waiting.add(task, -1);
        self.leased.push(LeasedJob {
            lease,
            task: line.task.clone(),
            lane: line.lane.clone(),
            payload,
            batch,
            generation,
            failures,
            crashes,
            due: ready.due,
            claimed_at: self.now,
            tick,
        });
        Ok(())
    }

    fn leave(&mut self, lane: LaneId, turn: u64, open: bool) -> rusqlite::Result<()> {
        self.ledger.lanes.set_turn(LaneNo(lane.0 as u32), turn, open);
        Ok(())
    }

    fn hold(&mut self, lane: LaneId) -> rusqlite::Result<()> {
        self.ledger.lanes.close(LaneNo(lane.0 as u32));
        Ok(())
    }
}

/// Reads a row of `Statements::select_first`, or of a statement whose first columns are the same.
fn ready_job(row: &Row<'_>) -> rusqlite::Result<ReadyJob> {
    let payload_bytes = row.get(3).map(unsigned)?;
    let ready = Ready {
        id: job_id(row.get(0)?)?,
        priority: priority(row.get(1)?),
        due: columns::timestamp(row.get(2)?),
        bytes: payload_bytes,
    };
    let payload = bytes(row.get_ref(9)?);
    Ok(ReadyJob {
        ready,
        attempt: row.get(4)?,
        failures: FailureCount::from_number(row.get(5)?),
        crashes: row.get(6)?,
        batch: batch(row, 7)?,
        tick: columns::tick(row.get_ref(11)?.as_str_or_null()?)?,
        generation: row.get(10)?,
        payload: if payload_bytes == 0 { payload.or_else(|| Some(SharedBytes::default())) } else { payload },
    })
}
