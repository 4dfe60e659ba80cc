//! The writing side of the database. It belongs to the writer's thread, and every method runs inside the writer's transaction.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, params};
use wharf_core::admission::has_free_slot;
use wharf_core::audit::NewAct;
use wharf_core::author::Author;
use wharf_core::hold::HoldTable;
use wharf_core::ids::{JobId, JobIds};
use wharf_core::job::JobStatus;
use wharf_core::key::Lane;
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::time::Timestamp;

use super::lanes::{LaneNo, Lanes, Line};
use super::read;
use super::rows::{InternedNames, priority, rank, status};
use super::statements::Statements;
use super::unsynced_claims::{self, UnsyncedClaims};
use super::waiting_counts::{SharedCounts, WaitingCounts};
use crate::clock::Clock;
use crate::columns::{READY, key, key_text, signed, timestamp_us};

/// The writer's connection, and what the writer remembers of the tables. Each kind of operation has a file of its own:
/// `insert`, `claim`, `record`, `holds`, `operations`, `audit`, `kv`, `node_marks` and, for opening the file, `load_queue`.
pub(super) struct SqliteLedger<'c> {
    pub(super) conn: &'c Connection,
    pub(super) statements: Statements<'c>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) names: InternedNames,
    pub(super) lanes: Lanes,
    pub(super) waiting: WaitingCounts,
    /// The highest id in the table `claims`, also of rows that were deleted since.
    pub(super) last_claim: i64,
    /// Shared with everything that makes new job IDs.
    ids: Arc<Mutex<JobIds>>,
    /// Shared with the readers.
    unsynced_claims: Arc<Mutex<UnsyncedClaims>>,
    /// The limits that manifests and settings declared at the last insert or claim.
    declared: Arc<LimitTable>,
    /// The declared limits with the overrides applied; `None` if they have to be read again.
    effective: Option<Arc<LimitTable>>,
    /// The limits under which the last claim closed lanes; `None` if they are not known.
    closed_under: Option<Arc<LimitTable>>,
    /// The holds, in force or not; `None` if they have to be read again.
    pub(super) holds: Option<HoldTable>,
    /// The lanes are open that holds closed which had ended by this time.
    pub(super) holds_ended_by: Timestamp,
    /// True if commits wait for the disk.
    syncs: bool,
}

/// The parts of an open ledger that other threads use, too.
pub(super) struct SharedState {
    /// Makes job IDs that are higher than any that a job of this store has or had.
    pub(super) ids: Arc<Mutex<JobIds>>,
    pub(super) unsynced_claims: Arc<Mutex<UnsyncedClaims>>,
    pub(super) waiting: SharedCounts,
}

/// A job's row, without its payload and result.
pub(super) struct StoredJob {
    pub(super) status: JobStatus,
    /// The column `due_at` if the job is in the table `ready`, which it is in state `READY`: a delayed job that is due stays
    /// delayed until a claim makes it ready.
    pub(super) ready_due_at: Option<i64>,
    pub(super) lane: LaneNo,
    pub(super) task: i64,
    pub(super) priority: i32,
    /// In microseconds since 1970.
    pub(super) started_at: Option<i64>,
}

impl<'c> SqliteLedger<'c> {
    /// Reads the tables of a file that this process has locked, and ends all leases in it: the lock proves that their owners
    /// are gone.
    pub(super) fn open(conn: &'c Connection, clock: Arc<dyn Clock>) -> rusqlite::Result<SqliteLedger<'c>> {
        let now = timestamp_us(clock.now());
        conn.execute("UPDATE jobs SET lease_expires_at = ?1 WHERE state = 2 AND lease_expires_at > ?1", [now])?;
        conn.execute("UPDATE claims SET lease_expires_at = ?1 WHERE lease_expires_at > ?1", [now])?;
        let last_claim = conn.query_row("SELECT coalesce(max(id), 0) FROM claims", [], |row| row.get(0))?;
        let last_id: Option<i64> = conn.query_row(
            "SELECT max(id) FROM (SELECT max(id) AS id FROM jobs UNION ALL SELECT id FROM last_deleted)",
            [],
            |row| row.get(0),
        )?;
        let last_id = last_id.and_then(|last| JobId::from_number(last as u64));
        let mut ledger = SqliteLedger {
            conn,
            statements: Statements::new(conn),
            clock,
            names: InternedNames::default(),
            lanes: Lanes::default(),
            waiting: WaitingCounts::default(),
            last_claim,
            ids: Arc::new(Mutex::new(JobIds::after(last_id))),
            unsynced_claims: Arc::default(),
            declared: Arc::default(),
            effective: None,
            closed_under: None,
            holds: None,
            holds_ended_by: Timestamp::ZERO,
            syncs: true,
        };
        ledger.load_ready()?;
        ledger.load_delayed()?;
        ledger.load_running()?;
        ledger.load_claims()?;
        ledger.after_commit();
        Ok(ledger)
    }

    pub(super) fn shared(&self) -> SharedState {
        SharedState {
            ids: self.ids.clone(),
            unsynced_claims: self.unsynced_claims.clone(),
            waiting: self.waiting.shared(),
        }
    }

    /// Makes a new job ID.
    pub(super) fn next_id(&self) -> JobId {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).next(self.clock.now())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Sets if the next commit waits for the disk. Must be called before the transaction.
    pub(super) fn set_sync(&mut self, syncs: bool) -> rusqlite::Result<()> {
        if self.syncs != syncs {
            self.conn.execute_batch(if syncs { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" })?;
            self.syncs = syncs;
        }
        Ok(())
    }

    /// Writes the rows of `turns` and deletes the rows of `claims` that the transaction's changes require. Must be called last
    /// in every transaction.
    pub(super) fn flush(&mut self) -> rusqlite::Result<()> {
        for (deleted, written) in self.lanes.turn_changes() {
            if let Some(line) = deleted {
                self.conn.prepare_cached("DELETE FROM turns WHERE line = ?1")?.execute([line])?;
            }
            if let Some((line, turn)) = written {
                let mut write =
                    self.conn.prepare_cached("INSERT OR REPLACE INTO turns (line, turn) VALUES (?1, ?2)")?;
                write.execute([line, signed(turn)])?;
            }
        }
        for claim in self.lanes.obsolete_claims() {
            self.conn.prepare_cached("DELETE FROM claims WHERE id = ?1")?.execute([claim])?;
        }
        Ok(())
    }

    /// Keeps what was remembered of the transaction. Called after the commit, before any caller gets its result.
    pub(super) fn after_commit(&mut self) {
        self.waiting.commit();
        let changed = self.lanes.commit();
        if changed.is_empty() {
            return;
        }
        let mut claims = unsynced_claims::lock(&self.unsynced_claims);
        for id in changed {
            claims.update(id, self.lanes.running(id).map(|job| (job, self.lanes.lane(job.lane))));
        }
    }

    /// Forgets what was remembered of a transaction that was rolled back.
    pub(super) fn after_rollback(&mut self) {
        self.lanes.roll_back();
        self.waiting.roll_back();
        self.names = InternedNames::default();
        self.effective = None;
        self.closed_under = None;
        (self.holds, self.holds_ended_by) = (None, Timestamp::ZERO);
    }

    /// Replaces the declared limits.
    pub(super) fn declare(&mut self, declared: &Arc<LimitTable>) {
        if !Arc::ptr_eq(declared, &self.declared) {
            if **declared != *self.declared {
                self.effective = None;
            }
            self.declared = declared.clone();
        }
    }

    /// Returns the declared limits with the overrides applied.
    pub(super) fn limits(&mut self) -> rusqlite::Result<Arc<LimitTable>> {
        if let Some(limits) = &self.effective {
            return Ok(limits.clone());
        }
        let limits = Arc::new(self.declared.with_overrides(read::overrides(self.conn)?));
        self.effective = Some(limits.clone());
        Ok(limits)
    }

    /// Sets an override, or removes it if it has no limits.
    pub(super) fn set_override(&mut self, change: &Override, by: &Author) -> rusqlite::Result<()> {
        let (group, key) = (change.group.as_str(), key_text(change.key.as_ref()));
        if change.limits == Limits::default() {
            let mut delete = self.conn.prepare_cached("DELETE FROM overrides WHERE limit_group = ?1 AND key = ?2")?;
            if delete.execute([group, key])? == 0 {
                return Ok(());
            }
        } else {
            let mut write = self.conn.prepare_cached(
                "INSERT INTO overrides (limit_group, key, per_key, total) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET per_key = excluded.per_key, total = excluded.total",
            )?;
            write.execute(params![group, key, change.limits.per_key, change.limits.total])?;
        }
        self.effective = None;
        self.write_act(&NewAct::of_override(by.clone(), change))
    }

    /// Reads a job's row.
    pub(super) fn stored_job(&mut self, id: JobId) -> rusqlite::Result<Option<StoredJob>> {
        let mut read = self.conn.prepare_cached(
            "SELECT state, due_at, attempt, failures, crashes, cancel_requested, node, lease_expires_at, limit_group, key,
                    task, priority, started_at
             FROM jobs WHERE id = ?1",
        )?;
        let mut rows = read.query([signed(id.number())])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let lane = Lane { group: self.names.group(self.conn, row.get(8)?)?, key: key(row.get_ref(9)?.as_str()?)? };
        Ok(Some(StoredJob {
            status: status(id, row, 0)?,
            ready_due_at: if row.get::<_, i16>(0)? == READY { Some(row.get(1)?) } else { None },
            lane: self.lanes.find_or_add(&lane),
            task: row.get(10)?,
            priority: row.get(11)?,
            started_at: row.get(12)?,
        }))
    }

    /// Adds a job to the ready ones.
    pub(super) fn add_ready(
        &mut self,
        (lane, task, priority): (LaneNo, i64, i32),
        due_at: i64,
        id: i64,
    ) -> rusqlite::Result<()> {
        let line = self.lanes.add_ready(lane, task, priority);
        self.statements.insert_ready.prepared()?.execute([line, rank(priority), due_at, id])?;
        Ok(())
    }

    /// Removes a job from the ready ones that ended without being claimed.
    pub(super) fn remove_ready(
        &mut self,
        (lane, task, priority): (LaneNo, i64, i32),
        due_at: i64,
        id: i64,
    ) -> rusqlite::Result<()> {
        let Some(line) = self.lanes.line(lane, task) else { return Ok(()) };
        let mut delete =
            self.conn.prepare_cached("DELETE FROM ready WHERE line = ?1 AND rank = ?2 AND due_at = ?3 AND id = ?4")?;
        let deleted = delete.execute([line.number, rank(priority), due_at, id])?;
        drop(delete);
        self.shrink_line(lane, line, deleted as u64)
    }

    /// Updates a line from which `removed` jobs were deleted: its top becomes the priority of its first job, and a line without
    /// jobs is removed.
    pub(super) fn shrink_line(&mut self, lane: LaneNo, line: Line, removed: u64) -> rusqlite::Result<()> {
        let count = line.count.saturating_sub(removed);
        let mut top = line.top;
        if count > 0 && line.low < line.top {
            let mut first = self.conn.prepare_cached("SELECT rank FROM ready WHERE line = ?1 ORDER BY rank LIMIT 1")?;
            let first: Option<i64> = first.query_row([line.number], |row| row.get(0)).optional()?;
            top = first.map_or(top, priority);
        }
        self.lanes.set_line(lane, line.task, Some(Line { count, top, ..line }));
        Ok(())
    }

    /// Reopens all lanes if they were closed under other limits than these; those that are full will be closed again.
    pub(super) fn reopen_all_if_changed(&mut self, limits: &Arc<LimitTable>) {
        if !self.closed_under.as_ref().is_some_and(|under| Arc::ptr_eq(under, limits) || **under == **limits) {
            self.lanes.open_all();
            self.closed_under = Some(limits.clone());
        }
    }

    /// Reopens a lane in which an attempt ended, if it is closed and has a free slot now. That depends on the limits under
    /// which it was closed, since other limits reopen every lane at the next claim.
    pub(super) fn reopen_lane(&mut self, lane: LaneNo) {
        if let Some(limits) = &self.closed_under
            && !self.lanes.is_open(lane)
            && has_free_slot(self.lanes.holders(lane).len() as u32, limits.per_key(&self.lanes.lane(lane)))
        {
            self.lanes.open(lane);
        }
    }
}
