//! A claim: delayed jobs that are due become ready, then `admission` chooses among the lines.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row, params};
use wharf_core::admission::{LaneId, Line, Ready, Waiting, admit};
use wharf_core::bounds;
use wharf_core::ids::{Group, TaskName};
use wharf_core::job::{Batch, Leased, Standing, State};
use wharf_core::key::Lane;
use wharf_core::lease::Lease;
use wharf_core::lifecycle::Event;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::ledger::Ledger;
use super::rows::{RUNNING, batch, bytes, damaged, job_id, key_of, micros, moment, signed};
use super::running::{Hot, LaneRow};
use crate::store::{Claim, Claimed};

impl Ledger {
    pub(super) fn claim(&mut self, claim: &Claim, now: Timestamp) -> rusqlite::Result<Claimed> {
        self.declare(&claim.declared);
        let limits = self.limits()?;
        self.reopen_all_unless(&limits)?;
        self.promote(now)?;
        // Before anything is leased: what is read later has it already.
        self.running()?;
        let wake_at = self.next_due()?.map(|due| due.max(now));

        let mut desk = Desk {
            ledger: self,
            claim,
            limits: &limits,
            now,
            lanes: Vec::new(),
            places: HashMap::new(),
            heads: HashMap::new(),
            leased: Vec::new(),
        };
        let admitted = admit(&mut desk, &claim.tasks, &limits, claim.free)?;
        Ok(Claimed { leased: desk.leased, wake_at: if admitted.cut { Some(now) } else { wake_at } })
    }

    /// Makes ready what is due, at most `PROMOTE_BATCH`: one claim must not pay for all that came due at once.
    fn promote(&mut self, now: Timestamp) -> rusqlite::Result<()> {
        let mut find = self.conn.prepare_cached(
            "SELECT id, grp, key, task, priority FROM jobs WHERE state = 0 AND due <= ?1 ORDER BY due, id LIMIT ?2",
        )?;
        let found = find.query_map(params![micros(now), bounds::PROMOTE_BATCH], |row| {
            Ok((row.get(0)?, LaneRow { group: row.get(1)?, key: row.get(2)? }, row.get(3)?, row.get(4)?))
        })?;
        let due: Vec<(i64, LaneRow, i64, i32)> = found.collect::<rusqlite::Result<_>>()?;
        drop(find);
        for (id, lane, task, priority) in due {
            let line = self.join_line(&lane, task, priority)?;
            self.conn.prepare_cached("UPDATE jobs SET state = 1, line = ?2 WHERE id = ?1")?.execute([id, line])?;
        }
        Ok(())
    }

    fn next_due(&self) -> rusqlite::Result<Option<Timestamp>> {
        let mut next = self.conn.prepare_cached("SELECT due FROM jobs WHERE state = 0 ORDER BY due LIMIT 1")?;
        let mut rows = next.query([])?;
        rows.next()?.map(|row| moment(row, "due")).transpose()
    }
}

/// One claim in progress.
struct Desk<'l> {
    ledger: &'l mut Ledger,
    claim: &'l Claim,
    limits: &'l Arc<LimitTable>,
    now: Timestamp,
    /// Lane ids are places in this list.
    lanes: Vec<Seat>,
    places: HashMap<LaneRow, usize>,
    /// Of each line that was looked into, the jobs that stand first and were not leased: never none, if there are any.
    heads: HashMap<i64, VecDeque<Head>>,
    leased: Vec<Leased>,
}

struct Seat {
    row: LaneRow,
    lane: Lane,
    holders: u32,
    /// The numbers of its lines of the claim's tasks.
    lines: Vec<(TaskName, i64)>,
    /// Lines that jobs were leased from, with the tops that they had.
    touched: Vec<(i64, i32)>,
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

/// Payloads of at most this size are read with the jobs that stand first: to ask for each costs more.
const SMALL_BYTES_MAX: i64 = 4096;

impl Desk<'_> {
    fn seat(&mut self, row: LaneRow) -> rusqlite::Result<usize> {
        if let Some(place) = self.places.get(&row) {
            return Ok(*place);
        }
        let lane = Lane { group: self.ledger.names.group(&self.ledger.conn, row.group)?, key: key_of(&row.key)? };
        // What has no limit is not counted.
        let holders = match self.limits.per_key(&lane) {
            Some(_) => self.ledger.running()?.count(&row),
            None => 0,
        };
        self.lanes.push(Seat { row: row.clone(), lane, holders, lines: Vec::new(), touched: Vec::new() });
        self.places.insert(row, self.lanes.len() - 1);
        Ok(self.lanes.len() - 1)
    }

    fn line(&mut self, place: usize, task: TaskName, found: LineRow) -> Line {
        let seat = &mut self.lanes[place];
        if !seat.lines.iter().any(|(known, _)| *known == task) {
            seat.lines.push((task.clone(), found.id));
        }
        let (lane_id, lane) = (LaneId(place as u64), seat.lane.clone());
        Line { lane_id, lane, task, top: found.top, turn: found.turn as u64, holders: seat.holders }
    }

    fn payload(&self, job: i64) -> rusqlite::Result<Arc<[u8]>> {
        let mut read = self.ledger.conn.prepare_cached("SELECT payload FROM payloads WHERE job = ?1")?;
        let payload = read.query_row([job], |row| Ok(bytes(row.get_ref(0)?))).optional()?;
        Ok(payload.flatten().unwrap_or_default())
    }

    /// The number of a line that this claim has seen.
    fn number(&self, lane: LaneId, task: &TaskName) -> rusqlite::Result<i64> {
        let lines = &self.lanes[lane.0 as usize].lines;
        let found = lines.iter().find(|(known, _)| known == task);
        found.map(|(_, id)| *id).ok_or_else(|| damaged("a line of a task", task.as_str()))
    }
}

struct LineRow {
    id: i64,
    top: i32,
    turn: i64,
}

impl LineRow {
    fn of(row: &Row<'_>) -> rusqlite::Result<LineRow> {
        Ok(LineRow { id: row.get(0)?, top: row.get(1)?, turn: row.get(2)? })
    }
}

impl Waiting for Desk<'_> {
    type Error = rusqlite::Error;

    fn lines(&mut self, task: &TaskName, most: u32) -> rusqlite::Result<Vec<Line>> {
        // A task that no job was ever enqueued for has no number.
        let Some(number) = self.ledger.names.find(&self.ledger.conn, task.as_str())? else { return Ok(Vec::new()) };
        let mut find = self.ledger.conn.prepare_cached(
            "SELECT id, top, turn, grp, key FROM lines WHERE open = 1 AND task = ?1 ORDER BY top DESC, turn LIMIT ?2",
        )?;
        let found = find.query_map(params![number, most], |row| {
            Ok((LaneRow { group: row.get(3)?, key: row.get(4)? }, LineRow::of(row)?))
        })?;
        let found: Vec<(LaneRow, LineRow)> = found.collect::<rusqlite::Result<_>>()?;
        drop(find);
        let lines = found.into_iter().map(|(row, line)| {
            let place = self.seat(row)?;
            Ok(self.line(place, task.clone(), line))
        });
        lines.collect()
    }

    fn siblings(&mut self, lane: LaneId, task: &TaskName, tasks: &[TaskName]) -> rusqlite::Result<Vec<Line>> {
        if tasks.len() < 2 {
            return Ok(Vec::new());
        }
        let place = lane.0 as usize;
        let row = &self.lanes[place].row;
        let mut find = self
            .ledger
            .conn
            .prepare_cached("SELECT id, top, turn, task FROM lines WHERE grp = ?1 AND key = ?2 AND open = 1")?;
        let found = find.query_map(params![row.group, row.key], |row| Ok((row.get(3)?, LineRow::of(row)?)))?;
        let found: Vec<(i64, LineRow)> = found.collect::<rusqlite::Result<_>>()?;
        drop(find);
        let mut lines = Vec::new();
        for (number, line) in found {
            let other = self.ledger.names.task(&self.ledger.conn, number)?;
            if other != *task && tasks.contains(&other) {
                lines.push(self.line(place, other, line));
            }
        }
        Ok(lines)
    }

    fn heads(&mut self, lane: LaneId, task: &TaskName, most: u32) -> rusqlite::Result<Vec<Ready>> {
        let line = self.number(lane, task)?;
        // One more than asked for: whether there is one decides what becomes of the line.
        let mut find = self.ledger.conn.prepare_cached(
            "SELECT id, priority, due, bytes, attempt, failures, crashes, batch, topic,
                    (SELECT payload FROM payloads WHERE job = jobs.id AND jobs.bytes <= ?3)
             FROM jobs WHERE state = 1 AND line = ?1 ORDER BY priority DESC, due, id LIMIT ?2",
        )?;
        let found = find.query_map(params![line, i64::from(most) + 1, SMALL_BYTES_MAX], head)?;
        let heads: VecDeque<Head> = found.collect::<rusqlite::Result<_>>()?;
        let first = heads.iter().take(most as usize).map(|head| head.ready).collect();
        self.heads.insert(line, heads);
        Ok(first)
    }

    fn group_holders(&mut self, group: &Group) -> rusqlite::Result<u32> {
        let Some(number) = self.ledger.names.find(&self.ledger.conn, group.as_str())? else { return Ok(0) };
        let most = self.limits.of(group).total.unwrap_or(u32::MAX);
        let mut count = self
            .ledger
            .conn
            .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM jobs WHERE state = 2 AND grp = ?1 LIMIT ?2)")?;
        count.query_row(params![number, most], |row| row.get(0))
    }

    fn next_turn(&mut self) -> rusqlite::Result<u64> {
        Ok(self.ledger.next_turn() as u64)
    }

    fn lease(&mut self, line: &Line, ready: &Ready) -> rusqlite::Result<()> {
        let id = signed(ready.id.number());
        let number = self.number(line.lane_id, &line.task)?;
        let heads = self.heads.entry(number).or_default();
        let head = heads.iter().position(|head| head.ready.id == ready.id).and_then(|place| heads.remove(place));
        let Some(Head { attempt, failures, crashes, batch, payload, .. }) = head else {
            return Err(damaged("a job at the head of its line", &ready.id.to_string()));
        };
        let payload = match payload {
            Some(payload) => payload,
            None => self.payload(id)?,
        };
        let state = State::Waiting { due: ready.due };
        let before = Standing { state, attempt, failures, crashes, cancel_asked: false };
        let until = self.now + self.claim.lease;
        let lease = Lease { job: ready.id, attempt: before.attempt + 1, node: self.claim.node, until };
        let after = before
            .after(&Event::Claimed { lease }, self.now)
            .map_err(|refusal| damaged("a ready job", &format!("{}: {refusal}", ready.id)))?;
        let mut write = self.ledger.conn.prepare_cached(
            "UPDATE jobs SET state = 2, attempt = ?2, cancel_asked = ?3, node = ?4, lease_until = ?5, started_at = ?6
             WHERE id = ?1",
        )?;
        let node = signed(lease.node.0);
        write.execute(params![id, after.attempt, after.cancel_asked, node, micros(until), micros(self.now)])?;
        drop(write);

        let seat = &mut self.lanes[line.lane_id.0 as usize];
        let task = self.ledger.names.number(&self.ledger.conn, line.task.as_str())?;
        let (line_number, lane, priority) = (Some(number), seat.row.clone(), ready.priority);
        self.ledger
            .running()?
            .put(ready.id, Hot { standing: after, state: RUNNING, lane, task, line: line_number, priority });
        if !seat.touched.contains(&(number, line.top)) {
            seat.touched.push((number, line.top));
        }
        self.leased.push(Leased {
            lease,
            task: line.task.clone(),
            lane: line.lane.clone(),
            payload,
            batch,
            failures: before.failures,
            due: ready.due,
            claimed_at: self.now,
        });
        Ok(())
    }

    fn leave(&mut self, lane: LaneId, turn: u64, open: bool) -> rusqlite::Result<()> {
        let seat = &self.lanes[lane.0 as usize];
        let mut is_gone = false;
        for (line, top) in &seat.touched {
            let first = self.heads.get(line).and_then(VecDeque::front).map(|head| head.ready.priority);
            if first != Some(*top) {
                self.ledger.set_top(*line, first)?;
            }
            is_gone = first.is_none() && self.ledger.is_one_line(&seat.row);
        }
        // It has a seat because one of its lines was seen.
        match seat.lines.first() {
            Some((_, line)) if !is_gone => self.ledger.leave_lane(&seat.row, *line, turn, open),
            _ => Ok(()),
        }
    }
}

fn head(row: &Row<'_>) -> rusqlite::Result<Head> {
    let size: i64 = row.get(3)?;
    let due = Timestamp::from_micros(row.get::<_, i64>(2)? as u64);
    let ready = Ready { id: job_id(row.get(0)?)?, priority: row.get(1)?, due, bytes: size as u64 };
    Ok(Head {
        ready,
        attempt: row.get(4)?,
        failures: row.get(5)?,
        crashes: row.get(6)?,
        batch: if row.get_ref(7)? == ValueRef::Null { None } else { batch(row)? },
        payload: if size > SMALL_BYTES_MAX { None } else { Some(bytes(row.get_ref(9)?).unwrap_or_default()) },
    })
}
