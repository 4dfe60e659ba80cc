//! Ledger: the writing side of the database. Belongs to the writer's thread; every method runs inside its transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use wharf_core::admission::has_room;
use wharf_core::ids::JobId;
use wharf_core::key::Lane;
use wharf_core::limits::{LimitTable, Limits, Override};
use wharf_core::time::Timestamp;

use super::read;
use super::rows::{Names, key_text, micros, signed};
use super::running::{LaneRow, Running};
use crate::clock::Clock;

pub(super) struct Ledger {
    pub(super) conn: Connection,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) names: Names,
    /// The tasks that ever had a line in a group since the file was opened, or had one then. Where it is one, a lane of
    /// the group is one line, and need not be looked up by its key.
    tasks_of: HashMap<i64, HashSet<i64>>,
    /// `None` when it has to be read again.
    running: Option<Running>,
    /// The line that was joined last, as it stands. Who comes in a batch often joins the same.
    joined: Option<Joined>,
    /// The last turn that was given out.
    turn: i64,
    /// What manifests and settings said at the last insert or claim.
    declared: Arc<LimitTable>,
    /// The same with the overrides on top; `None` when those have to be read again.
    in_force: Option<Arc<LimitTable>>,
    /// By which limits the last claim closed lanes; `None` when that is not known.
    closed_by: Option<Arc<LimitTable>>,
}

/// A line of a lane.
struct Joined {
    lane: LaneRow,
    task: i64,
    line: i64,
    top: i32,
}

impl Ledger {
    /// Takes over the file. Its lock proves that whoever held the leases in it is gone.
    pub(super) fn open(conn: Connection, clock: Arc<dyn Clock>) -> rusqlite::Result<Ledger> {
        let now = micros(clock.now());
        conn.execute("UPDATE jobs SET lease_until = ?1 WHERE state = 2 AND lease_until > ?1", [now])?;
        let turn = conn.query_row("SELECT coalesce(max(turn), 0) FROM lines", [], |row| row.get(0))?;
        let mut tasks_of: HashMap<i64, HashSet<i64>> = HashMap::new();
        let mut find = conn.prepare("SELECT DISTINCT grp, task FROM lines")?;
        for pair in find.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (group, task) = pair?;
            tasks_of.entry(group).or_default().insert(task);
        }
        drop(find);
        let names = Names::default();
        Ok(Ledger {
            conn,
            clock,
            names,
            tasks_of,
            running: None,
            joined: None,
            turn,
            declared: Arc::default(),
            in_force: None,
            closed_by: None,
        })
    }

    /// The highest id that a job of this store has or had.
    pub(super) fn last_id(&self) -> rusqlite::Result<Option<JobId>> {
        let last: Option<i64> = self.conn.query_row(
            "SELECT max(id) FROM (SELECT max(id) AS id FROM jobs UNION ALL SELECT id FROM last_forgotten)",
            [],
            |row| row.get(0),
        )?;
        Ok(last.and_then(|last| JobId::from_number(last as u64)))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What was remembered of a transaction that is undone is not true.
    pub(super) fn doubt(&mut self) {
        self.names = Names::default();
        self.running = None;
        self.joined = None;
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
        let limits = Arc::new(self.declared.with_overrides(read::overrides(&self.conn)?));
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

    pub(super) fn next_turn(&mut self) -> i64 {
        self.turn += 1;
        self.turn
    }

    pub(super) fn lane_row(&mut self, lane: &Lane) -> rusqlite::Result<LaneRow> {
        let group = self.names.number(&self.conn, lane.group.as_str())?;
        Ok(LaneRow { group, key: key_text(lane).to_owned() })
    }

    /// The line of a job that becomes ready: it is there now, and its top is no lower than the job's priority.
    /// A lane joins at the back of the ring; a line joins its lane as that stands.
    pub(super) fn join_line(&mut self, lane: &LaneRow, task: i64, priority: i32) -> rusqlite::Result<i64> {
        if let Some(joined) = &self.joined
            && joined.lane == *lane
            && joined.task == task
            && joined.top >= priority
        {
            return Ok(joined.line);
        }
        let known: Option<(i64, i32)> = self
            .conn
            .prepare_cached("SELECT id, top FROM lines WHERE grp = ?1 AND key = ?2 AND task = ?3")?
            .query_row(params![lane.group, lane.key, task], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match known {
            Some((line, top)) => {
                if top < priority {
                    self.conn
                        .prepare_cached("UPDATE lines SET top = ?2 WHERE id = ?1")?
                        .execute(params![line, priority])?;
                }
                self.joined = Some(Joined { lane: lane.clone(), task, line, top: top.max(priority) });
                Ok(line)
            }
            None => {
                let turn = self.next_turn();
                self.tasks_of.entry(lane.group).or_default().insert(task);
                let mut join = self.conn.prepare_cached(
                    "INSERT INTO lines (grp, key, task, top, turn, open) VALUES (?1, ?2, ?3, ?4,
                         coalesce((SELECT turn FROM lines WHERE grp = ?1 AND key = ?2 LIMIT 1), ?5),
                         coalesce((SELECT open FROM lines WHERE grp = ?1 AND key = ?2 LIMIT 1), 1))",
                )?;
                join.execute(params![lane.group, lane.key, task, priority, turn])?;
                let line = self.conn.last_insert_rowid();
                self.joined = Some(Joined { lane: lane.clone(), task, line, top: priority });
                Ok(line)
            }
        }
    }

    /// Jobs of this line are ready no more: its top is that of the first one left, or it goes.
    pub(super) fn settle_line(&mut self, line: i64) -> rusqlite::Result<()> {
        let first: Option<i32> = self
            .conn
            .prepare_cached("SELECT priority FROM jobs WHERE state = 1 AND line = ?1 ORDER BY priority DESC LIMIT 1")?
            .query_row([line], |row| row.get(0))
            .optional()?;
        self.set_top(line, first)
    }

    /// The first job left of a line has this priority; where none is left, the line goes.
    pub(super) fn set_top(&mut self, line: i64, top: Option<i32>) -> rusqlite::Result<()> {
        self.joined = None;
        match top {
            Some(top) => {
                let mut lower = self.conn.prepare_cached("UPDATE lines SET top = ?2 WHERE id = ?1 AND top <> ?2")?;
                lower.execute(params![line, top])?;
            }
            None => _ = self.conn.prepare_cached("DELETE FROM lines WHERE id = ?1")?.execute([line])?,
        }
        Ok(())
    }

    pub(super) fn running(&mut self) -> rusqlite::Result<&mut Running> {
        if self.running.is_none() {
            self.running = Some(Running::read(&self.conn)?);
        }
        Ok(self.running.as_mut().expect("read above"))
    }

    /// Where lanes were closed by other limits than these, all are open again; those that are full will be closed anew.
    pub(super) fn reopen_all_unless(&mut self, limits: &Arc<LimitTable>) -> rusqlite::Result<()> {
        if self.closed_by.as_ref().is_some_and(|by| Arc::ptr_eq(by, limits) || **by == **limits) {
            return Ok(());
        }
        self.conn.prepare_cached("UPDATE lines SET open = 1 WHERE open = 0")?.execute([])?;
        self.closed_by = Some(limits.clone());
        Ok(())
    }

    /// An attempt of this lane ended, which may be closed: if it has room now, it is open again.
    /// Judged by the limits that closed it, since others reopen every lane at the next claim.
    /// `line` is where the job once waited: most likely a line of the lane still, and found faster than by the key.
    pub(super) fn reopen_lane(&mut self, row: &LaneRow, line: Option<i64>) -> rusqlite::Result<()> {
        let Some(limits) = self.closed_by.clone() else { return Ok(()) };
        let group = self.names.group(&self.conn, row.group)?;
        // Only the limit of its key closes a lane.
        let Some(limit) = limits.per_key(&Lane { group, key: super::rows::key_of(&row.key)? }) else { return Ok(()) };
        if !has_room(self.running()?.count(row), Some(limit)) {
            return Ok(());
        }
        self.running()?.open(row);
        if self.is_one_line(row)
            && let Some(line) = line
        {
            // The number may have passed to another lane, or the line be gone.
            let mut open =
                self.conn.prepare_cached("UPDATE lines SET open = 1 WHERE id = ?1 AND grp = ?2 AND key = ?3")?;
            if open.execute(params![line, row.group, row.key])? > 0 {
                return Ok(());
            }
        }
        let mut open =
            self.conn.prepare_cached("UPDATE OR FAIL lines SET open = 1 WHERE grp = ?1 AND key = ?2 AND open = 0")?;
        open.execute(params![row.group, row.key])?;
        Ok(())
    }

    /// Whether the lane cannot have more than one line.
    pub(super) fn is_one_line(&self, lane: &LaneRow) -> bool {
        self.tasks_of.get(&lane.group).is_some_and(|tasks| tasks.len() == 1)
    }

    /// How the lane is left by a claim, which knows it by one of its lines.
    /// `OR FAIL` here and above: where an error undoes the transaction anyway, SQLite need not keep a copy of each page
    /// to undo the one statement.
    pub(super) fn leave_lane(&mut self, lane: &LaneRow, line: i64, turn: u64, open: bool) -> rusqlite::Result<()> {
        if !open {
            self.running()?.close(lane);
        }
        if self.is_one_line(lane) {
            let mut leave = self.conn.prepare_cached("UPDATE lines SET turn = ?2, open = ?3 WHERE id = ?1")?;
            leave.execute(params![line, signed(turn), open])?;
            return Ok(());
        }
        let mut leave = self.conn.prepare_cached(
            "UPDATE OR FAIL lines SET turn = ?3, open = ?4 WHERE grp = ?1 AND key = ?2 AND (turn <> ?3 OR open <> ?4)",
        )?;
        leave.execute(params![lane.group, lane.key, signed(turn), open])?;
        Ok(())
    }
}
