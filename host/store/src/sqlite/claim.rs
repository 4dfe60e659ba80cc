//! A claim: delayed jobs that are due become ready, then `admission` chooses among the lines.

use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row, params};
use smallvec::SmallVec;
use wharf_core::admission::{LaneId, Line, QueueView, Ready, admit};
use wharf_core::bounds;
use wharf_core::ids::{Group, TaskName};
use wharf_core::job::{Batch, JobStatus, LeasedJob, State};
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::lanes::{self, Hot, LaneNo};
use super::ledger::Ledger;
use super::rows::{batch, bytes, damaged, job_id, key_of, micros, moment, rank, signed};
use super::unsynced_claims;
use crate::store::{Claim, Claimed};

impl Ledger<'_> {
    pub(super) fn claim(&mut self, claim: &Claim, now: Timestamp) -> rusqlite::Result<Claimed> {
        self.declare(&claim.declared);
        let limits = self.limits()?;
        self.reopen_all_unless(&limits);
        self.promote(now)?;
        let wake_at = self.next_due()?.map(|due| due.max(now));

        let number = self.last_claim + 1;
        let mut desk =
            Desk { ledger: self, claim, number, limits: &limits, now, heads: HashMap::new(), leased: Vec::new() };
        let admitted = admit(&mut desk, &claim.offer(), &limits)?;
        let Desk { heads, leased, .. } = desk;
        self.take_out(heads)?;
        if !leased.is_empty() {
            self.last_claim = number;
            let mut write = self.conn.prepare_cached(
                "INSERT INTO claims (id, node, claimed_at, lease_until, jobs) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            let jobs = unsynced_claims::column(leased.iter().map(|leased| &leased.lease));
            write.execute(params![number, signed(claim.node.0), micros(now), micros(now + claim.lease), jobs])?;
        }
        let wake_at = if admitted.cut { Some(now) } else { wake_at };
        Ok(Claimed { leased, wake_at, held_back: admitted.held_back })
    }

    /// Makes ready what is due, at most `PROMOTE_BATCH`: one claim must not pay for all that came due at once.
    fn promote(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare_cached(
            "SELECT id, grp, key, task, priority, due FROM jobs WHERE state = 0 AND due <= ?1 ORDER BY due, id LIMIT ?2",
        )?;
        let found = find.query_map(params![micros(now), bounds::PROMOTE_BATCH], |row| {
            Ok(((row.get(0)?, row.get(5)?), (row.get(1)?, row.get::<_, String>(2)?), (row.get(3)?, row.get(4)?)))
        })?;
        let due: Vec<((i64, i64), (i64, String), (i64, i32))> = found.collect::<rusqlite::Result<_>>()?;
        drop(find);
        for ((id, due), (group, key), (task, priority)) in due {
            let lane = Lane { group: self.names.group(self.conn, group)?, key: key_of(&key)? };
            let lane = self.lanes.enter(&lane);
            self.add_ready((lane, task, priority), due, id)?;
            self.conn.prepare_cached("UPDATE jobs SET state = 1 WHERE id = ?1")?.execute([id])?;
        }
        Ok(())
    }

    fn next_due(&self) -> rusqlite::Result<Option<Timestamp>> {
        let mut next = self.conn.prepare_cached("SELECT due FROM jobs WHERE state = 0 ORDER BY due LIMIT 1")?;
        let mut rows = next.query([])?;
        rows.next()?.map(|row| moment(row, "due")).transpose()
    }

    /// The leased jobs of a line are its first ones, and ready no more.
    fn take_out(&mut self, heads: HashMap<(LaneNo, i64), Heads>) -> rusqlite::Result<()> {
        let mut whole: Vec<(lanes::Line, LaneNo)> = Vec::new();
        for ((lane, task), heads) in heads {
            let (Some(line), Some(last)) = (self.lanes.line(lane, task), heads.leased()) else { continue };
            if heads.taken as u64 == line.count {
                whole.push((line, lane));
                continue;
            }
            let last = params![line.number, rank(last.priority), micros(last.due), signed(last.id.number())];
            gone(self.statements.take_first.prepared()?.execute(last)?, heads.taken)?;
            self.shorten(lane, line, heads.taken as u64)?;
        }
        whole.sort_unstable_by_key(|(line, _)| line.number);
        for run in runs(&whole, |(line, _)| line.number) {
            let mut take = self.conn.prepare_cached("DELETE FROM ready WHERE line BETWEEN ?1 AND ?2")?;
            let all: u64 = run.iter().map(|(line, _)| line.count).sum();
            gone(take.execute([run[0].0.number, run[run.len() - 1].0.number])?, all as usize)?;
            drop(take);
            for (line, lane) in run {
                self.shorten(*lane, *line, line.count)?;
            }
        }
        Ok(())
    }
}

/// Lines that follow each other without a gap: what is asked of such can be asked of all at once, and lanes that come to be
/// in one transaction have such.
fn runs<T>(sorted: &[T], number: impl Fn(&T) -> i64) -> impl Iterator<Item = &[T]> {
    sorted.chunk_by(move |one, next| number(one) + 1 == number(next))
}

fn gone(gone: usize, leased: usize) -> rusqlite::Result<()> {
    if gone == leased {
        Ok(())
    } else {
        Err(damaged("a line", &format!("{leased} of its jobs were leased, {gone} gone")))
    }
}

/// One claim in progress.
struct Desk<'l, 'c> {
    ledger: &'l mut Ledger<'c>,
    claim: &'l Claim,
    /// Of the claim's row.
    number: i64,
    limits: &'l Arc<LimitTable>,
    now: Timestamp,
    /// Of each line that was looked into.
    heads: HashMap<(LaneNo, i64), Heads>,
    leased: Vec<LeasedJob>,
}

/// The jobs that stand first in a line, as far as they were read.
#[derive(Default)]
struct Heads {
    jobs: Vec<Head>,
    /// How many of them are leased: they are the first.
    taken: usize,
}

impl Heads {
    /// The last one that was leased.
    fn leased(&self) -> Option<Ready> {
        self.jobs[..self.taken].last().map(|head| head.ready)
    }
}

/// A ready job, with all that its lease takes.
struct Head {
    ready: Ready,
    attempt: u32,
    failures: u32,
    crashes: u32,
    batch: Option<Batch>,
    /// `None` if it is too large to be read before it is leased.
    payload: Option<Arc<[u8]>>,
}

/// Where lanes take turns, so many jobs of each are read at once, of those that may start.
const READ_AHEAD: u32 = 16;

impl Desk<'_, '_> {
    fn line(&self, no: LaneNo, line: lanes::Line, task: &TaskName) -> Line {
        let lanes = &self.ledger.lanes;
        Line {
            lane_id: LaneId(u64::from(no.0)),
            lane: lanes.lane(no),
            task: task.clone(),
            top: line.top,
            turn: lanes.turn(no),
            holders: lanes.holders(no).len() as u32,
        }
    }

    /// What the ledger calls a line.
    fn name(&mut self, lane: LaneId, task: &TaskName) -> rusqlite::Result<(LaneNo, i64)> {
        Ok((LaneNo(lane.0 as u32), self.ledger.names.number(self.ledger.conn, task.as_str())?))
    }

    /// Reads on in a line, behind what was read of it.
    fn read(&mut self, name: (LaneNo, i64), max: usize) -> rusqlite::Result<()> {
        let Some(line) = self.ledger.lanes.line(name.0, name.1) else { return Ok(()) };
        let heads = self.heads.entry(name).or_default();
        let find = self.ledger.statements.read_first.prepared()?;
        for head in find.query_map(params![line.number, max as i64, heads.jobs.len() as i64], head)? {
            heads.jobs.push(head?);
        }
        Ok(())
    }

    /// Reads the jobs of lines that have only one.
    fn read_singles(&mut self, lanes: &[LaneNo], task: i64) -> rusqlite::Result<()> {
        let line = |no: &LaneNo| self.ledger.lanes.line(*no, task).map(|line| (line, *no));
        let is_single = |(line, no): &(lanes::Line, LaneNo)| line.count == 1 && !self.heads.contains_key(&(*no, task));
        let mut singles: Vec<(lanes::Line, LaneNo)> = lanes.iter().filter_map(line).filter(is_single).collect();
        singles.sort_unstable_by_key(|(line, _)| line.number);
        for run in runs(&singles, |(line, _)| line.number) {
            let mut find = self.ledger.conn.prepare_cached(
                "SELECT ready.id, -rank, ready.due, bytes, attempt, failures, crashes, batch, topic, payload, line
                 FROM ready CROSS JOIN jobs ON jobs.id = ready.id WHERE line BETWEEN ?1 AND ?2 ORDER BY line",
            )?;
            let (first, last) = (run[0].0.number, run[run.len() - 1].0.number);
            for head in find.query_map([first, last], |row| Ok((row.get::<_, i64>(10)?, head(row)?)))? {
                let (line, head) = head?;
                self.heads.insert((run[(line - first) as usize].1, task), Heads { jobs: vec![head], taken: 0 });
            }
        }
        Ok(())
    }

    fn payload(&self, job: i64) -> rusqlite::Result<Arc<[u8]>> {
        let mut read = self.ledger.conn.prepare_cached("SELECT payload FROM payloads WHERE job = ?1")?;
        let payload = read.query_row([job], |row| Ok(bytes(row.get_ref(0)?))).optional()?;
        Ok(payload.flatten().unwrap_or_default())
    }
}

impl QueueView for Desk<'_, '_> {
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
        let name = self.name(lane, task)?;
        let heads = self.heads.entry(name).or_default();
        let known = heads.jobs.len() - heads.taken;
        if known < max as usize {
            // One at a time is asked for where lanes take turns; what a lane has room for is read at once.
            let lanes = &self.ledger.lanes;
            let room = self.limits.per_key(&lanes.lane(name.0)).unwrap_or(u32::MAX);
            let more = room.saturating_sub(lanes.holders(name.0).len() as u32).clamp(1, READ_AHEAD);
            self.read(name, (max as usize - known).max(more as usize))?;
        }
        let heads = self.heads.entry(name).or_default();
        Ok(heads.jobs[heads.taken..].iter().take(max as usize).map(|head| head.ready).collect())
    }

    fn group_holders(&mut self, group: &Group) -> rusqlite::Result<u32> {
        let max = self.limits.of(group).total.unwrap_or(u32::MAX);
        let lanes = &self.ledger.lanes;
        let of_group = lanes.all_running().filter(|(_, hot)| lanes.group(hot.lane) == group);
        Ok(of_group.take(max as usize).count() as u32)
    }

    fn next_turn(&mut self) -> rusqlite::Result<u64> {
        Ok(self.ledger.lanes.next_turn())
    }

    fn lease(&mut self, line: &Line, ready: &Ready) -> rusqlite::Result<()> {
        let (lane, task) = self.name(line.lane_id, &line.task)?;
        let heads = self.heads.entry((lane, task)).or_default();
        let Some(head) = heads.jobs.get_mut(heads.taken).filter(|head| head.ready.id == ready.id) else {
            return Err(damaged("a job at the head of its line", &ready.id.to_string()));
        };
        heads.taken += 1;
        let Head { attempt, failures, crashes, .. } = *head;
        let (batch, payload) = (head.batch.take(), head.payload.take());
        let payload = match payload {
            Some(payload) => payload,
            None => self.payload(signed(ready.id.number()))?,
        };
        let state = State::Waiting { due: ready.due };
        let before = JobStatus { state, attempt, failures, crashes, cancel_asked: false };
        let until = self.now + self.claim.lease;
        let lease = Lease { job: ready.id, attempt: before.attempt + 1, node: self.claim.node, until };
        let standing = before
            .after(&Event::Claimed { lease }, self.now)
            .map_err(|refusal| damaged("a ready job", &format!("{}: {refusal}", ready.id)))?;
        let (priority, started_at, claim) = (ready.priority, self.now, Some(self.number));
        self.ledger.lanes.change_job(ready.id, Some(Hot { standing, lane, task, priority, started_at, claim }));
        self.leased.push(LeasedJob {
            lease,
            task: line.task.clone(),
            lane: line.lane.clone(),
            payload,
            batch,
            failures,
            crashes,
            due: ready.due,
            claimed_at: self.now,
        });
        Ok(())
    }

    fn leave(&mut self, lane: LaneId, turn: u64, open: bool) -> rusqlite::Result<()> {
        self.ledger.lanes.leave(LaneNo(lane.0 as u32), turn, open);
        Ok(())
    }
}

fn head(row: &Row<'_>) -> rusqlite::Result<Head> {
    let size: i64 = row.get(3)?;
    let due = Timestamp::from_micros(row.get::<_, i64>(2)? as u64);
    let ready = Ready { id: job_id(row.get(0)?)?, priority: row.get(1)?, due, bytes: size as u64 };
    let payload = bytes(row.get_ref(9)?);
    Ok(Head {
        ready,
        attempt: row.get(4)?,
        failures: row.get(5)?,
        crashes: row.get(6)?,
        batch: if row.get_ref(7)? == ValueRef::Null { None } else { batch(row)? },
        payload: if size == 0 { payload.or_else(|| Some(Arc::default())) } else { payload },
    })
}
