//! Ledger: the writing side of the database. Belongs to the writer's thread; every method runs inside its transaction.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use wharf_core::admission::has_free_slot;
use wharf_core::ids::{JobId, JobIds};
use wharf_core::job::JobStatus;
use wharf_core::key::Lane;
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::time::Timestamp;

use super::lanes::{LaneNo, Lanes, Line};
use super::read;
use super::rows::{Names, key_of, micros, rank, signed, standing};
use super::statements::Statements;
use super::unsynced_claims::{self, Unwritten};
use crate::clock::Clock;

pub(super) struct Ledger<'c> {
    pub(super) conn: &'c Connection,
    pub(super) statements: Statements<'c>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) names: Names,
    pub(super) lanes: Lanes,
    pub(super) last_claim: i64,
    /// Shared with whoever makes new jobs.
    ids: Arc<Mutex<JobIds>>,
    /// For the readers: jobs that run though their rows do not say so yet.
    unwritten: Arc<Mutex<Unwritten>>,
    /// What manifests and settings said at the last insert or claim.
    declared: Arc<LimitTable>,
    /// The same with the overrides on top; `None` when those have to be read again.
    in_force: Option<Arc<LimitTable>>,
    /// By which limits the last claim closed lanes; `None` when that is not known.
    closed_by: Option<Arc<LimitTable>>,
    /// Whether commits wait for the disk.
    syncs: bool,
}

/// What others have to know of a file that was taken over.
pub(super) struct Opened {
    /// What makes ids: past the highest that a job of this store has or had.
    pub(super) ids: Arc<Mutex<JobIds>>,
    /// Jobs that run though their rows do not say so yet.
    pub(super) unwritten: Arc<Mutex<Unwritten>>,
}

/// A job as its row says, without what is large.
pub(super) struct Known {
    pub(super) standing: JobStatus,
    /// As it is written: a delayed job that is due stays delayed until a claim makes it ready.
    pub(super) state: i64,
    pub(super) lane: LaneNo,
    pub(super) task: i64,
    pub(super) priority: i32,
    pub(super) due: i64,
    pub(super) started_at: Option<i64>,
}

impl<'c> Ledger<'c> {
    /// Takes over the file. Its lock proves that whoever held the leases in it is gone.
    pub(super) fn open(conn: &'c Connection, clock: Arc<dyn Clock>) -> rusqlite::Result<Ledger<'c>> {
        let now = micros(clock.now());
        conn.execute("UPDATE jobs SET lease_until = ?1 WHERE state = 2 AND lease_until > ?1", [now])?;
        conn.execute("UPDATE claims SET lease_until = ?1 WHERE lease_until > ?1", [now])?;
        let last_claim = conn.query_row("SELECT coalesce(max(id), 0) FROM claims", [], |row| row.get(0))?;
        let last_id: Option<i64> = conn.query_row(
            "SELECT max(id) FROM (SELECT max(id) AS id FROM jobs UNION ALL SELECT id FROM last_forgotten)",
            [],
            |row| row.get(0),
        )?;
        let last_id = last_id.and_then(|last| JobId::from_number(last as u64));
        let mut ledger = Ledger {
            conn,
            statements: Statements::of(conn),
            clock,
            names: Names::default(),
            lanes: Lanes::default(),
            last_claim,
            ids: Arc::new(Mutex::new(JobIds::after(last_id))),
            unwritten: Arc::default(),
            declared: Arc::default(),
            in_force: None,
            closed_by: None,
            syncs: true,
        };
        ledger.read_waiting()?;
        ledger.read_running()?;
        ledger.read_claims()?;
        ledger.committed();
        Ok(ledger)
    }

    pub(super) fn opened(&self) -> Opened {
        Opened { ids: self.ids.clone(), unwritten: self.unwritten.clone() }
    }

    pub(super) fn next_id(&self) -> JobId {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(self.clock.now())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether the next commit waits for the disk. To be said before the transaction.
    pub(super) fn sync(&mut self, syncs: bool) -> rusqlite::Result<()> {
        if self.syncs != syncs {
            self.conn.execute_batch(if syncs { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" })?;
            self.syncs = syncs;
        }
        Ok(())
    }

    /// The last of each transaction.
    pub(super) fn settle(&mut self) -> rusqlite::Result<()> {
        for (goes, comes) in self.lanes.turns_to_keep() {
            if let Some(line) = goes {
                self.conn.prepare_cached("DELETE FROM turns WHERE line = ?1")?.execute([line])?;
            }
            if let Some((line, turn)) = comes {
                let mut keep = self.conn.prepare_cached("INSERT OR REPLACE INTO turns (line, turn) VALUES (?1, ?2)")?;
                keep.execute([line, signed(turn)])?;
            }
        }
        for claim in self.lanes.claims_over() {
            self.conn.prepare_cached("DELETE FROM claims WHERE id = ?1")?.execute([claim])?;
        }
        Ok(())
    }

    /// The transaction is durable, and nobody was told yet.
    pub(super) fn committed(&mut self) {
        let changed = self.lanes.committed();
        if changed.is_empty() {
            return;
        }
        let mut unwritten = unsynced_claims::look(&self.unwritten);
        for id in changed {
            unwritten.show(id, self.lanes.running(id).map(|hot| (hot, self.lanes.lane(hot.lane))));
        }
    }

    /// What was remembered of a transaction that is undone is not true.
    pub(super) fn doubt(&mut self) {
        self.lanes.undone();
        self.names = Names::default();
        self.in_force = None;
        self.closed_by = None;
    }

    pub(super) fn declare(&mut self, declared: &Arc<LimitTable>) {
        if !Arc::ptr_eq(declared, &self.declared) {
            if **declared != *self.declared {
                self.in_force = None;
            }
            self.declared = declared.clone();
        }
    }

    pub(super) fn limits(&mut self) -> rusqlite::Result<Arc<LimitTable>> {
        if let Some(limits) = &self.in_force {
            return Ok(limits.clone());
        }
        let limits = Arc::new(self.declared.with_overrides(read::overrides(self.conn)?));
        self.in_force = Some(limits.clone());
        Ok(limits)
    }

    pub(super) fn set_override(&mut self, change: &Override) -> rusqlite::Result<()> {
        let (group, key) = (change.group.as_str(), change.key.as_ref().map_or("", |key| key.as_str()));
        if change.limits == Limits::default() {
            let mut end = self.conn.prepare_cached("DELETE FROM overrides WHERE grp = ?1 AND key = ?2")?;
            end.execute([group, key])?;
        } else {
            let mut set = self.conn.prepare_cached(
                "INSERT INTO overrides (grp, key, per_key, total) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET per_key = excluded.per_key, total = excluded.total",
            )?;
            set.execute(params![group, key, change.limits.per_key, change.limits.total])?;
        }
        self.in_force = None;
        Ok(())
    }

    /// What the job's row says.
    pub(super) fn known(&mut self, id: JobId) -> rusqlite::Result<Option<Known>> {
        let mut read = self.conn.prepare_cached(
            "SELECT state, due, attempt, failures, crashes, cancel_asked, node, lease_until, grp, key, task, priority,
                    started_at
             FROM jobs WHERE id = ?1",
        )?;
        let mut rows = read.query([signed(id.number())])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let lane = Lane { group: self.names.group(self.conn, row.get(8)?)?, key: key_of(row.get_ref(9)?.as_str()?)? };
        Ok(Some(Known {
            standing: standing(id, row, 0)?,
            state: row.get(0)?,
            lane: self.lanes.enter(&lane),
            task: row.get(10)?,
            priority: row.get(11)?,
            due: row.get(1)?,
            started_at: row.get(12)?,
        }))
    }

    /// A job became ready.
    pub(super) fn add_ready(
        &mut self,
        (lane, task, priority): (LaneNo, i64, i32),
        due: i64,
        id: i64,
    ) -> rusqlite::Result<()> {
        let line = self.lanes.add(lane, task, priority);
        self.statements.add_ready.prepared()?.execute([line, rank(priority), due, id])?;
        Ok(())
    }

    /// A job that was ready ended without being claimed.
    pub(super) fn remove_ready(
        &mut self,
        (lane, task, priority): (LaneNo, i64, i32),
        due: i64,
        id: i64,
    ) -> rusqlite::Result<()> {
        let Some(line) = self.lanes.line(lane, task) else { return Ok(()) };
        let mut remove =
            self.conn.prepare_cached("DELETE FROM ready WHERE line = ?1 AND rank = ?2 AND due = ?3 AND id = ?4")?;
        let gone = remove.execute([line.number, rank(priority), due, id])?;
        drop(remove);
        self.shorten(lane, line, gone as u64)
    }

    /// So many jobs of a line are ready no more: its top is that of the first one left, or it goes.
    pub(super) fn shorten(&mut self, lane: LaneNo, line: Line, by: u64) -> rusqlite::Result<()> {
        let count = line.count.saturating_sub(by);
        let mut top = line.top;
        if count > 0 && line.low < line.top {
            let mut first = self.conn.prepare_cached("SELECT rank FROM ready WHERE line = ?1 ORDER BY rank LIMIT 1")?;
            let first: Option<i64> = first.query_row([line.number], |row| row.get(0)).optional()?;
            top = first.map_or(top, |rank| -rank as i32);
        }
        self.lanes.change_line(lane, line.task, Some(Line { count, top, ..line }));
        Ok(())
    }

    /// Where lanes were closed by other limits than these, all are open again; those that are full will be closed anew.
    pub(super) fn reopen_all_unless(&mut self, limits: &Arc<LimitTable>) {
        if !self.closed_by.as_ref().is_some_and(|by| Arc::ptr_eq(by, limits) || **by == **limits) {
            self.lanes.open_all();
            self.closed_by = Some(limits.clone());
        }
    }

    /// An attempt of this lane ended, which may be closed: if it has room now, it is open again.
    /// Judged by the limits that closed it, since others reopen every lane at the next claim.
    pub(super) fn reopen_lane(&mut self, lane: LaneNo) {
        if let Some(limits) = &self.closed_by
            && !self.lanes.is_open(lane)
            && has_free_slot(self.lanes.holders(lane).len() as u32, limits.per_key(&self.lanes.lane(lane)))
        {
            self.lanes.open(lane);
        }
    }
}
