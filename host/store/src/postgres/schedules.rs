//! The tables `schedules` and `schedule_files`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::audit::NewAct;
use wharf_core::bounds;
use wharf_core::conflict::make_room;
use wharf_core::ids::{JobId, NodeId, ScheduleId};
use wharf_core::limits::LimitTable;
use wharf_core::schedule::{Schedule, ScheduleFiring, ScheduleSource, TickStep};
use wharf_core::time::Timestamp;

use super::ledger::PostgresLedger;
use super::operation::{WriteRequest, WriteResult};
use super::session::{Session, SessionError, computed, value};
use super::{PostgresStore, unexpected_reply};
use crate::columns::{DamagedData, parse, signed, timestamp, timestamp_us, unsigned};
use crate::schedule_columns::{SCHEDULE_COLUMNS, ScheduleColumns, file, file_text};
use crate::store::{
    DueSchedules, FiringResults, Queue as _, ScheduleFired, ScheduleStore, ScheduleWrite, ScheduleWritten, StoreError,
};

/// The lock under which schedules are created: otherwise there could be more of them than there may be.
const LOCK_CREATE: &str = "SELECT pg_advisory_xact_lock('$schema.schedules'::regclass::oid::bigint << 32)";

/// The columns that a change of a row may write: all but the first.
const UPDATED: &str = "task, key, payload, priority, cron, zone, every_us, missed, window_us, overlap, spread_us, pause_after,
    source, revision, version, author, created_at, changed_at, moved_at, next_at, last_tick, open_jobs, failures, paused_at,
    paused_until, paused_by, pause_reason, retired_at, fired_count, missed_count, skipped_count, recent, tick_as";

fn read(row: &Row) -> Result<Schedule, SessionError> {
    const TABLE: &str = "schedules";
    let columns = ScheduleColumns {
        id: value(row, TABLE, 0)?,
        task: value(row, TABLE, 1)?,
        key: value(row, TABLE, 2)?,
        payload: value(row, TABLE, 3)?,
        priority: value(row, TABLE, 4)?,
        cron: value(row, TABLE, 5)?,
        zone: value(row, TABLE, 6)?,
        every_us: value(row, TABLE, 7)?,
        missed: value(row, TABLE, 8)?,
        window_us: value(row, TABLE, 9)?,
        overlap: value(row, TABLE, 10)?,
        spread_us: value(row, TABLE, 11)?,
        pause_after: value(row, TABLE, 12)?,
        source: value(row, TABLE, 13)?,
        revision: value(row, TABLE, 14)?,
        version: value(row, TABLE, 15)?,
        author: value(row, TABLE, 16)?,
        created_at: value(row, TABLE, 17)?,
        changed_at: value(row, TABLE, 18)?,
        moved_at: value(row, TABLE, 19)?,
        next_at: value(row, TABLE, 20)?,
        last_tick: value(row, TABLE, 21)?,
        open_jobs: value(row, TABLE, 22)?,
        failures: value(row, TABLE, 23)?,
        paused_at: value(row, TABLE, 24)?,
        paused_until: value(row, TABLE, 25)?,
        paused_by: value(row, TABLE, 26)?,
        pause_reason: value(row, TABLE, 27)?,
        retired_at: value(row, TABLE, 28)?,
        fired_count: value(row, TABLE, 29)?,
        missed_count: value(row, TABLE, 30)?,
        skipped_count: value(row, TABLE, 31)?,
        recent: value(row, TABLE, 32)?,
        tick_as: value(row, TABLE, 33)?,
    };
    Ok(columns.schedule()?)
}

async fn schedule(session: &Session, id: &ScheduleId) -> Result<Option<Schedule>, SessionError> {
    let text = format!("SELECT {SCHEDULE_COLUMNS} FROM $schema.schedules WHERE id = $1");
    let found = session.query(&text, &[(&id.as_str(), Type::TEXT)]).await?;
    found.first().map(read).transpose()
}

async fn page(
    session: &Session,
    source: Option<ScheduleSource>,
    after: Option<&ScheduleId>,
    max: u32,
) -> Result<Vec<Schedule>, SessionError> {
    let text = format!(
        "SELECT {SCHEDULE_COLUMNS} FROM $schema.schedules WHERE id > $1 AND ($3::text IS NULL OR source = $3)
         ORDER BY id LIMIT $2"
    );
    let source = source.map(ScheduleSource::as_str);
    let (after, max) = (after.map_or("", ScheduleId::as_str), i64::from(max.clamp(1, bounds::PAGE_MAX)));
    let found =
        session.query_selective(&text, &[(&after, Type::TEXT), (&max, Type::INT8), (&source, Type::TEXT)]).await?;
    found.iter().map(read).collect()
}

async fn due(
    session: &Session,
    after: Option<&(Timestamp, ScheduleId)>,
    max: u32,
    now: Timestamp,
) -> Result<DueSchedules, SessionError> {
    let now = timestamp_us(now);
    let text = "SELECT min(next_at), EXISTS (SELECT FROM $schema.schedules WHERE next_at <= $1)
                FROM $schema.schedules WHERE next_at > $1";
    let row = session.query_selective(text, &[(&now, Type::INT8)]).await?;
    let row =
        row.first().ok_or_else(|| SessionError::Damaged("a query that always returns a row returned none".into()))?;
    let next_at = value::<Option<i64>>(row, "schedules", 0)?.map(timestamp);
    if !computed::<bool>(row, 1)? {
        return Ok(DueSchedules { due: Vec::new(), next_at });
    }
    let text = format!(
        "SELECT {SCHEDULE_COLUMNS} FROM $schema.schedules WHERE next_at <= $1 AND (next_at, id) > ($2, $3)
         ORDER BY next_at, id LIMIT $4"
    );
    let (at, id) = after.map_or((-1, ""), |(at, id)| (timestamp_us(*at), id.as_str()));
    let max = i64::from(max.clamp(1, bounds::PAGE_MAX));
    let args = [(&now as _, Type::INT8), (&at as _, Type::INT8), (&id as _, Type::TEXT), (&max as _, Type::INT8)];
    let due = session.query_selective(&text, &args).await?;
    Ok(DueSchedules { due: due.iter().map(read).collect::<Result<_, _>>()?, next_at })
}

async fn ahead(session: &Session, max: u32, now: Timestamp) -> Result<Vec<Schedule>, SessionError> {
    let text = format!("SELECT {SCHEDULE_COLUMNS} FROM $schema.schedules WHERE moved_at > $1 ORDER BY id LIMIT $2");
    let (after, max) = (timestamp_us(now + bounds::SCHEDULE_GRACE), i64::from(max.clamp(1, bounds::PAGE_MAX)));
    let found = session.query_selective(&text, &[(&after, Type::INT8), (&max, Type::INT8)]).await?;
    found.iter().map(read).collect()
}

async fn files(session: &Session) -> Result<Vec<(NodeId, BTreeMap<ScheduleId, u64>)>, SessionError> {
    const TABLE: &str = "schedule_files";
    let found = session.query("SELECT node, schedules FROM $schema.schedule_files ORDER BY node", &[]).await?;
    let read = |row: &Row| {
        let (node, text): (i64, String) = (value(row, TABLE, 0)?, value(row, TABLE, 1)?);
        Ok((NodeId(unsigned(node)), file(&text)?))
    };
    found.iter().map(read).collect()
}

async fn set_file(
    session: &Session,
    node: NodeId,
    file: &BTreeMap<ScheduleId, u64>,
    gone: &[NodeId],
) -> Result<(), SessionError> {
    let mut gone: Vec<i64> = gone.iter().map(|node| signed(node.0)).collect();
    let node = signed(node.0);
    if file.is_empty() {
        gone.push(node);
    }
    let delete = "DELETE FROM $schema.schedule_files WHERE node = ANY($1)";
    session.query_if(!gone.is_empty(), delete, &[(&gone, Type::INT8_ARRAY)]).await?;
    let text = file_text(file);
    let write = "INSERT INTO $schema.schedule_files (node, schedules) VALUES ($1, $2)
                 ON CONFLICT (node) DO UPDATE SET schedules = excluded.schedules";
    session.query_if(!file.is_empty(), write, &[(&node, Type::INT8), (&text, Type::TEXT)]).await.map(drop)
}

impl PostgresLedger<'_> {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), SessionError> {
        let columns = ScheduleColumns::from(schedule);
        let values: Vec<String> = (1..=34).map(|place| format!("${place}")).collect();
        let excluded: Vec<String> = UPDATED.split(',').map(|name| format!("excluded.{}", name.trim())).collect();
        let text = format!(
            "INSERT INTO $schema.schedules ({SCHEDULE_COLUMNS}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET ({UPDATED}) = ROW({})",
            values.join(", "),
            excluded.join(", ")
        );
        let args = [
            (&columns.id as _, Type::TEXT),
            (&columns.task as _, Type::TEXT),
            (&columns.key as _, Type::TEXT),
            (&columns.payload as _, Type::BYTEA),
            (&columns.priority as _, Type::INT4),
            (&columns.cron as _, Type::TEXT),
            (&columns.zone as _, Type::TEXT),
            (&columns.every_us as _, Type::INT8),
            (&columns.missed as _, Type::TEXT),
            (&columns.window_us as _, Type::INT8),
            (&columns.overlap as _, Type::TEXT),
            (&columns.spread_us as _, Type::INT8),
            (&columns.pause_after as _, Type::INT8),
            (&columns.source as _, Type::TEXT),
            (&columns.revision as _, Type::INT8),
            (&columns.version as _, Type::INT8),
            (&columns.author as _, Type::TEXT),
            (&columns.created_at as _, Type::INT8),
            (&columns.changed_at as _, Type::INT8),
            (&columns.moved_at as _, Type::INT8),
            (&columns.next_at as _, Type::INT8),
            (&columns.last_tick as _, Type::INT8),
            (&columns.open_jobs as _, Type::TEXT),
            (&columns.failures as _, Type::INT8),
            (&columns.paused_at as _, Type::INT8),
            (&columns.paused_until as _, Type::INT8),
            (&columns.paused_by as _, Type::TEXT),
            (&columns.pause_reason as _, Type::TEXT),
            (&columns.retired_at as _, Type::INT8),
            (&columns.fired_count as _, Type::INT8),
            (&columns.missed_count as _, Type::INT8),
            (&columns.skipped_count as _, Type::INT8),
            (&columns.recent as _, Type::TEXT),
            (&columns.tick_as as _, Type::TEXT),
        ];
        self.session.query(&text, &args).await.map(drop)
    }

    /// Locks the rows of all schedules of a transaction in the order of their IDs: transactions wait for each other and never in a
    /// circle, however their requests came together.
    pub(super) async fn lock_schedules(&self, ids: &[&str]) -> Result<(), SessionError> {
        let text = "SELECT FROM $schema.schedules WHERE id = ANY($1) ORDER BY id FOR UPDATE";
        self.session.query_if(ids.len() > 1, text, &[(&ids, Type::TEXT_ARRAY)]).await.map(drop)
    }

    /// Writes schedules whose versions are as expected.
    pub(super) async fn write_schedules(&self, writes: &[ScheduleWrite]) -> Result<Vec<ScheduleWritten>, SessionError> {
        let creates = writes.iter().any(|write| write.expected.is_none());
        let mut count = 0;
        if creates {
            self.session.query(LOCK_CREATE, &[]).await?;
            let row = self.session.query_one("SELECT count(*) FROM $schema.schedules", &[]).await?;
            count = computed::<i64>(&row, 0)?;
        }
        let ids: Vec<&str> = writes.iter().map(|write| write.id.as_str()).collect();
        let text = "SELECT id, version FROM $schema.schedules WHERE id = ANY($1) ORDER BY id FOR UPDATE";
        let mut versions: HashMap<ScheduleId, i64> = HashMap::new();
        for row in self.session.query(text, &[(&ids, Type::TEXT_ARRAY)]).await? {
            let id: String = value(&row, "schedules", 0)?;
            versions.insert(parse("schedule ID", &id)?, value(&row, "schedules", 1)?);
        }
        let mut results = Vec::with_capacity(writes.len());
        for write in writes {
            let found = versions.get(&write.id).copied();
            if found != write.expected.map(signed) {
                results.push(ScheduleWritten::Stale);
                continue;
            }
            if found.is_none() && count >= i64::from(bounds::SCHEDULES_MAX) {
                results.push(ScheduleWritten::TooMany);
                continue;
            }
            match &write.schedule {
                Some(schedule) => {
                    self.put_schedule(schedule).await?;
                    count += i64::from(found.is_none());
                    versions.insert(write.id.clone(), signed(schedule.version));
                }
                None => {
                    let delete = "DELETE FROM $schema.schedules WHERE id = $1";
                    self.session.query(delete, &[(&write.id.as_str(), Type::TEXT)]).await?;
                    versions.remove(&write.id);
                }
            }
            if let Some(act) = &write.act {
                self.write_act(act).await?;
            }
            results.push(ScheduleWritten::Written);
        }
        Ok(results)
    }

    /// Fires schedules that have not changed since it was decided. Their rows are locked in the order of their IDs, after the
    /// limit groups: of two hosts that fire one schedule the second finds another version.
    pub(super) async fn fire_schedules(
        &mut self,
        firings: &[ScheduleFiring],
    ) -> Result<Vec<Option<ScheduleFired>>, SessionError> {
        let ids: Vec<&str> = firings.iter().map(|firing| firing.id.as_str()).collect();
        let text =
            format!("SELECT {SCHEDULE_COLUMNS} FROM $schema.schedules WHERE id = ANY($1) ORDER BY id FOR UPDATE");
        let mut schedules: HashMap<ScheduleId, Schedule> = HashMap::new();
        for row in self.session.query(&text, &[(&ids, Type::TEXT_ARRAY)]).await? {
            let schedule = read(&row)?;
            schedules.insert(schedule.id.clone(), schedule);
        }
        let mut all = Vec::with_capacity(firings.len());
        for firing in firings {
            let fired = match schedules.get(&firing.id) {
                Some(schedule) => self.fire_schedule(schedule, firing).await?,
                None => None,
            };
            if let Some(fired) = &fired {
                schedules.insert(firing.id.clone(), fired.fired.schedule.clone());
            }
            all.push(fired);
        }
        // Sent together: the server answers all of them after one round trip.
        try_join_all(all.iter().flatten().map(|fired| self.put_schedule(&fired.fired.schedule))).await?;
        Ok(all)
    }

    async fn fire_schedule(
        &mut self,
        schedule: &Schedule,
        firing: &ScheduleFiring,
    ) -> Result<Option<ScheduleFired>, SessionError> {
        let status = |id: &JobId| self.jobs.get(id).map(|job| job.status);
        let statuses: Vec<_> = firing.open.iter().map(status).collect();
        let Some(run) = schedule.begin_firing(firing, &statuses, self.now) else { return Ok(None) };
        let mut results = FiringResults::new(run);
        for (place, tick) in firing.ticks.iter().enumerate().take(results.run.ticks()) {
            match (results.run.step(place), &tick.job) {
                (TickStep::Skip(skip), _) => results.run.skipped(place, skip),
                (TickStep::MakeRoom { replaced, cancelled }, _) => {
                    for (id, event) in make_room(&replaced, &cancelled) {
                        self.apply(id, &event).await?.map_err(|refusal| DamagedData::refused(id, refusal))?;
                    }
                    results.made_room(replaced, cancelled);
                }
                (TickStep::Insert { replaced, cancelled }, Ok(job)) => {
                    for (id, event) in make_room(&replaced, &cancelled) {
                        self.apply(id, &event).await?.map_err(|refusal| DamagedData::refused(id, refusal))?;
                    }
                    let inserted = self.insert(job).await?;
                    results.inserted(place, (replaced, cancelled), inserted);
                }
                (TickStep::Insert { .. }, Err(why)) => Err(DamagedData::inconsistent(why))?,
            }
        }
        let fired = results.end();
        if let Some(act) = NewAct::of_firing(firing, &fired.fired) {
            self.write_act(&act).await?;
        }
        Ok(Some(fired))
    }
}

#[async_trait]
impl ScheduleStore for PostgresStore {
    async fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, StoreError> {
        let session = self.reader().await?;
        let found = schedule(&session, &id).await;
        self.finish(session, found)
    }

    async fn schedules(
        &self,
        source: Option<ScheduleSource>,
        after: Option<ScheduleId>,
        max: u32,
    ) -> Result<Vec<Schedule>, StoreError> {
        let session = self.reader().await?;
        let found = page(&session, source, after.as_ref(), max).await;
        self.finish(session, found)
    }

    async fn due_schedules(
        &self,
        after: Option<(Timestamp, ScheduleId)>,
        max: u32,
    ) -> Result<DueSchedules, StoreError> {
        let session = self.reader().await?;
        let found = due(&session, after.as_ref(), max, self.now()).await;
        self.finish(session, found)
    }

    async fn schedules_ahead(&self, max: u32) -> Result<Vec<Schedule>, StoreError> {
        let session = self.reader().await?;
        let found = ahead(&session, max, self.now()).await;
        self.finish(session, found)
    }

    async fn write_schedules(&self, writes: Vec<ScheduleWrite>) -> Result<Vec<ScheduleWritten>, StoreError> {
        match self.write(WriteRequest::WriteSchedules(writes)).await? {
            WriteResult::SchedulesWritten(written) => Ok(written),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn fire_schedules(
        &self,
        firings: Arc<Vec<ScheduleFiring>>,
        declared: Arc<LimitTable>,
    ) -> Result<Vec<Option<ScheduleFired>>, StoreError> {
        match self.write(WriteRequest::FireSchedules(firings, declared)).await? {
            WriteResult::SchedulesFired(fired) => Ok(fired),
            other => Err(unexpected_reply(&other)),
        }
    }

    async fn schedule_files(&self) -> Result<Vec<(NodeId, BTreeMap<ScheduleId, u64>)>, StoreError> {
        let session = self.reader().await?;
        let found = files(&session).await;
        self.finish(session, found)
    }

    async fn set_schedule_file(
        &self,
        node: NodeId,
        file: BTreeMap<ScheduleId, u64>,
        gone: Vec<NodeId>,
    ) -> Result<(), StoreError> {
        let session = self.reader().await?;
        let set = set_file(&session, node, &file, &gone).await;
        self.finish(session, set)
    }
}
