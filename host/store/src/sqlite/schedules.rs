//! The tables `schedules` and `schedule_files`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};
use wharf_core::audit::NewAct;
use wharf_core::bounds;
use wharf_core::conflict::make_room;
use wharf_core::ids::{JobId, NodeId, ScheduleId};
use wharf_core::job::JobStatus;
use wharf_core::limits::LimitTable;
use wharf_core::schedule::{Schedule, ScheduleFiring, ScheduleSource, TickStep};
use wharf_core::time::Timestamp;

use super::SqliteStore;
use super::ledger::SqliteLedger;
use crate::columns::{DamagedData, signed, timestamp, timestamp_us, unsigned};
use crate::schedule_columns::{SCHEDULE_COLUMNS, ScheduleColumns, file, file_text};
use crate::store::{
    DueSchedules, FiringResults, Queue as _, ScheduleFired, ScheduleStore, ScheduleWrite, ScheduleWritten, StoreError,
};

fn read(row: &Row<'_>) -> rusqlite::Result<Schedule> {
    let columns = ScheduleColumns {
        id: row.get(0)?,
        task: row.get(1)?,
        key: row.get(2)?,
        payload: row.get(3)?,
        priority: row.get(4)?,
        cron: row.get(5)?,
        zone: row.get(6)?,
        every_us: row.get(7)?,
        missed: row.get(8)?,
        window_us: row.get(9)?,
        overlap: row.get(10)?,
        spread_us: row.get(11)?,
        pause_after: row.get(12)?,
        source: row.get(13)?,
        revision: row.get(14)?,
        version: row.get(15)?,
        author: row.get(16)?,
        created_at: row.get(17)?,
        changed_at: row.get(18)?,
        moved_at: row.get(19)?,
        next_at: row.get(20)?,
        last_tick: row.get(21)?,
        open_jobs: row.get(22)?,
        failures: row.get(23)?,
        paused_at: row.get(24)?,
        paused_until: row.get(25)?,
        paused_by: row.get(26)?,
        pause_reason: row.get(27)?,
        retired_at: row.get(28)?,
        fired_count: row.get(29)?,
        missed_count: row.get(30)?,
        skipped_count: row.get(31)?,
        recent: row.get(32)?,
        tick_as: row.get(33)?,
    };
    Ok(columns.schedule()?)
}

fn schedule(conn: &Connection, id: &ScheduleId) -> rusqlite::Result<Option<Schedule>> {
    let mut find = conn.prepare_cached(&format!("SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE id = ?1"))?;
    find.query_row([id.as_str()], read).optional()
}

fn page(
    conn: &Connection,
    source: Option<ScheduleSource>,
    after: Option<&ScheduleId>,
    max: u32,
) -> rusqlite::Result<Vec<Schedule>> {
    let text = format!(
        "SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE id > ?1 AND (?3 IS NULL OR source = ?3) ORDER BY id LIMIT ?2"
    );
    let source = source.map(ScheduleSource::as_str);
    let after = after.map_or("", ScheduleId::as_str);
    conn.prepare_cached(&text)?.query_map(params![after, max.clamp(1, bounds::PAGE_MAX), source], read)?.collect()
}

fn due(
    conn: &Connection,
    after: Option<&(Timestamp, ScheduleId)>,
    max: u32,
    now: Timestamp,
) -> rusqlite::Result<DueSchedules> {
    let text = format!(
        "SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE next_at <= ?1 AND (next_at, id) > (?2, ?3) ORDER BY next_at, id LIMIT ?4"
    );
    let (at, id) = after.map_or((-1, ""), |(at, id)| (timestamp_us(*at), id.as_str()));
    let mut find = conn.prepare_cached(&text)?;
    let due = find.query_map(params![timestamp_us(now), at, id, max.clamp(1, bounds::PAGE_MAX)], read)?;
    let due = due.collect::<rusqlite::Result<_>>()?;
    let mut next = conn.prepare_cached("SELECT min(next_at) FROM schedules WHERE next_at > ?1")?;
    let next_at: Option<i64> = next.query_row([timestamp_us(now)], |row| row.get(0))?;
    Ok(DueSchedules { due, next_at: next_at.map(timestamp) })
}

fn ahead(conn: &Connection, max: u32, now: Timestamp) -> rusqlite::Result<Vec<Schedule>> {
    let text = format!("SELECT {SCHEDULE_COLUMNS} FROM schedules WHERE moved_at > ?1 ORDER BY id LIMIT ?2");
    let after = timestamp_us(now + bounds::SCHEDULE_GRACE);
    conn.prepare_cached(&text)?.query_map(params![after, max.clamp(1, bounds::PAGE_MAX)], read)?.collect()
}

fn files(conn: &Connection) -> rusqlite::Result<Vec<(NodeId, BTreeMap<ScheduleId, u64>)>> {
    let mut find = conn.prepare_cached("SELECT node, schedules FROM schedule_files ORDER BY node")?;
    let read = |row: &Row<'_>| Ok((NodeId(unsigned(row.get(0)?)), file(row.get_ref(1)?.as_str()?)?));
    find.query_map([], read)?.collect()
}

impl SqliteLedger<'_> {
    fn put_schedule(&self, schedule: &Schedule) -> rusqlite::Result<()> {
        let columns = ScheduleColumns::from(schedule);
        let mut write = self.conn.prepare_cached(&format!(
            "INSERT OR REPLACE INTO schedules ({SCHEDULE_COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23,
                 ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34)"
        ))?;
        write.execute(params![
            columns.id,
            columns.task,
            columns.key,
            columns.payload,
            columns.priority,
            columns.cron,
            columns.zone,
            columns.every_us,
            columns.missed,
            columns.window_us,
            columns.overlap,
            columns.spread_us,
            columns.pause_after,
            columns.source,
            columns.revision,
            columns.version,
            columns.author,
            columns.created_at,
            columns.changed_at,
            columns.moved_at,
            columns.next_at,
            columns.last_tick,
            columns.open_jobs,
            columns.failures,
            columns.paused_at,
            columns.paused_until,
            columns.paused_by,
            columns.pause_reason,
            columns.retired_at,
            columns.fired_count,
            columns.missed_count,
            columns.skipped_count,
            columns.recent,
            columns.tick_as
        ])?;
        Ok(())
    }

    /// Writes a schedule. `count` is the number of all, once it was counted for a write of the same transaction.
    fn write_schedule(&self, write: &ScheduleWrite, count: &mut Option<u32>) -> rusqlite::Result<ScheduleWritten> {
        let mut find = self.conn.prepare_cached("SELECT version FROM schedules WHERE id = ?1")?;
        let found: Option<i64> = find.query_row([write.id.as_str()], |row| row.get(0)).optional()?;
        if found != write.expected.map(signed) {
            return Ok(ScheduleWritten::Stale);
        }
        if found.is_none() {
            let known = match *count {
                Some(known) => known,
                None => self.conn.query_row("SELECT count(*) FROM schedules", [], |row| row.get(0))?,
            };
            *count = Some(known);
            if known >= bounds::SCHEDULES_MAX {
                return Ok(ScheduleWritten::TooMany);
            }
        }
        match &write.schedule {
            Some(schedule) => {
                self.put_schedule(schedule)?;
                *count = count.map(|count| count + u32::from(found.is_none()));
            }
            None => {
                let deleted = self.conn.execute("DELETE FROM schedules WHERE id = ?1", [write.id.as_str()])?;
                *count = count.map(|count| count - deleted as u32);
            }
        }
        write.act.iter().try_for_each(|act| self.write_act(act))?;
        Ok(ScheduleWritten::Written)
    }

    /// Returns the status of a job.
    fn job_status(&mut self, id: JobId) -> rusqlite::Result<Option<JobStatus>> {
        if let Some(running) = self.lanes.running(id) {
            return Ok(Some(running.status));
        }
        Ok(self.stored_job(id)?.map(|stored| stored.status))
    }

    fn fire_schedule(&mut self, firing: &ScheduleFiring) -> rusqlite::Result<Option<ScheduleFired>> {
        let now = self.now();
        let Some(schedule) = schedule(self.conn, &firing.id)? else { return Ok(None) };
        let mut statuses = Vec::with_capacity(firing.open.len());
        for id in &firing.open {
            statuses.push(self.job_status(*id)?);
        }
        let Some(run) = schedule.begin_firing(firing, &statuses, now) else { return Ok(None) };
        let mut results = FiringResults::new(run);
        for (place, tick) in firing.ticks.iter().enumerate().take(results.run.ticks()) {
            match (results.run.step(place), &tick.job) {
                (TickStep::Skip(skip), _) => results.run.skipped(place, skip),
                (TickStep::MakeRoom { replaced, cancelled }, _) => {
                    for (id, event) in make_room(&replaced, &cancelled) {
                        self.apply(id, &event, now)?.map_err(|refusal| DamagedData::refused(id, refusal))?;
                    }
                    results.made_room(replaced, cancelled);
                }
                (TickStep::Insert { replaced, cancelled }, Ok(job)) => {
                    for (id, event) in make_room(&replaced, &cancelled) {
                        self.apply(id, &event, now)?.map_err(|refusal| DamagedData::refused(id, refusal))?;
                    }
                    let inserted = self.insert(job, now)?;
                    results.inserted(place, (replaced, cancelled), inserted);
                }
                (TickStep::Insert { .. }, Err(why)) => Err(DamagedData::inconsistent(why))?,
            }
        }
        let fired = results.end();
        self.put_schedule(&fired.fired.schedule)?;
        NewAct::of_firing(firing, &fired.fired).iter().try_for_each(|act| self.write_act(act))?;
        Ok(Some(fired))
    }

    fn set_schedule_file(
        &self,
        node: NodeId,
        file: &BTreeMap<ScheduleId, u64>,
        gone: &[NodeId],
    ) -> rusqlite::Result<()> {
        let mut delete = self.conn.prepare_cached("DELETE FROM schedule_files WHERE node = ?1")?;
        for node in gone.iter().chain([&node]) {
            delete.execute([signed(node.0)])?;
        }
        if !file.is_empty() {
            let text = "INSERT INTO schedule_files (node, schedules) VALUES (?1, ?2)";
            self.conn.prepare_cached(text)?.execute(params![signed(node.0), file_text(file)])?;
        }
        Ok(())
    }
}

#[async_trait]
impl ScheduleStore for SqliteStore {
    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, StoreError> {
        self.readers.read(move |conn| schedule(conn, &id)).await
    }

    async fn schedules(
        &self,
        source: Option<ScheduleSource>,
        after: Option<ScheduleId>,
        max: u32,
    ) -> Result<Vec<Schedule>, StoreError> {
        self.readers.read(move |conn| page(conn, source, after.as_ref(), max)).await
    }

    async fn due_schedules(
        &self,
        after: Option<(Timestamp, ScheduleId)>,
        max: u32,
    ) -> Result<DueSchedules, StoreError> {
        let now = self.now();
        self.readers.read(move |conn| due(conn, after.as_ref(), max, now)).await
    }

    async fn schedules_ahead(&self, max: u32) -> Result<Vec<Schedule>, StoreError> {
        let now = self.now();
        self.readers.read(move |conn| ahead(conn, max, now)).await
    }

    async fn write_schedules(&self, writes: Vec<ScheduleWrite>) -> Result<Vec<ScheduleWritten>, StoreError> {
        let write = move |ledger: &mut SqliteLedger| {
            let mut count = None;
            writes.iter().map(|write| ledger.write_schedule(write, &mut count)).collect()
        };
        self.writer.write(write, |_: &Vec<_>| false).await
    }

    async fn fire_schedules(
        &self,
        firings: Arc<Vec<ScheduleFiring>>,
        declared: Arc<LimitTable>,
    ) -> Result<Vec<Option<ScheduleFired>>, StoreError> {
        let fire = move |ledger: &mut SqliteLedger| {
            ledger.declare(&declared);
            firings.iter().map(|firing| ledger.fire_schedule(firing)).collect()
        };
        self.writer.write(fire, |_: &Vec<_>| true).await
    }

    async fn schedule_files(&self) -> Result<Vec<(NodeId, BTreeMap<ScheduleId, u64>)>, StoreError> {
        self.readers.read(files).await
    }

    async fn set_schedule_file(
        &self,
        node: NodeId,
        file: BTreeMap<ScheduleId, u64>,
        gone: Vec<NodeId>,
    ) -> Result<(), StoreError> {
        self.writer.write(move |ledger| ledger.set_schedule_file(node, &file, &gone), |()| false).await
    }
}
