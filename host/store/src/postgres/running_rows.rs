//! The table `running`: the running jobs of the locked limit groups, as the database has them and as this transaction leaves
//! them.
//!
//! It is read whole: a few bytes for each running job. An index of running jobs instead would cost each claim and each end.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::lane_rows::LaneRow;
use super::session::{Session, SessionError, value};
use super::unnest::unnest;

/// The maximum number of jobs in one row: as many as the server stores in the row itself.
const ROW_MAX: usize = 64;

/// A statement that reads the rows of the locked limit groups, for `RunningRows::read`.
pub(super) const READ_RUNNING: &str = "SELECT number, limit_group, ids, keys FROM $schema.running
    WHERE limit_group = ANY(current_setting('wharf.locked')::int[])";

/// One row: some of the jobs of one claim.
#[derive(Debug)]
struct RunningRow {
    number: i64,
    group: i32,
    ids: Vec<i64>,
    /// One for each id, or one for all.
    keys: Vec<String>,
    /// The length of their leases, in microseconds. Not read back, since no rule needs it.
    lease_us: i64,
    is_stored: bool,
    is_changed: bool,
}

impl RunningRow {
    fn read(row: &Row) -> Result<RunningRow, SessionError> {
        Ok(RunningRow {
            number: value(row, "running", 0)?,
            group: value(row, "running", 1)?,
            ids: value(row, "running", 2)?,
            keys: value(row, "running", 3)?,
            lease_us: 0,
            is_stored: true,
            is_changed: false,
        })
    }

    /// Returns its jobs with their keys.
    fn jobs(&self) -> impl Iterator<Item = (i64, &str)> {
        let key = |position: usize| self.keys.get(position).or(self.keys.first()).map_or("", String::as_str);
        self.ids.iter().enumerate().map(move |(position, id)| (*id, key(position)))
    }
}

/// The running jobs of the locked limit groups.
#[derive(Debug, Default)]
pub(super) struct RunningRows(Vec<RunningRow>);

/// The numbers of running jobs, by lane and by limit group.
#[derive(Debug, Default)]
pub(super) struct SlotCounts<'r> {
    lanes: HashMap<(i32, &'r str), u32>,
    groups: HashMap<i32, u32>,
}

impl SlotCounts<'_> {
    pub(super) fn of_lane(&self, lane: &LaneRow) -> u32 {
        self.lanes.get(&(lane.group, lane.key.as_str())).copied().unwrap_or_default()
    }

    pub(super) fn of_group(&self, group: i32) -> u32 {
        self.groups.get(&group).copied().unwrap_or_default()
    }
}

impl RunningRows {
    /// Reads the rows of `READ_RUNNING`.
    pub(super) fn read(found: &[Row]) -> Result<RunningRows, SessionError> {
        found.iter().map(RunningRow::read).collect::<Result<_, _>>().map(RunningRows)
    }

    pub(super) fn counts(&self) -> SlotCounts<'_> {
        let mut counts = SlotCounts::default();
        for row in &self.0 {
            *counts.groups.entry(row.group).or_default() += row.ids.len() as u32;
            match row.keys.as_slice() {
                [key] => *counts.lanes.entry((row.group, key)).or_default() += row.ids.len() as u32,
                keys => keys.iter().for_each(|key| *counts.lanes.entry((row.group, key)).or_default() += 1),
            }
        }
        counts
    }

    /// Returns the running jobs of a lane, sorted by id.
    pub(super) fn of_lane(&self, lane: &LaneRow) -> Vec<i64> {
        let rows = self.0.iter().filter(|row| row.group == lane.group);
        let mut ids: Vec<i64> =
            rows.flat_map(RunningRow::jobs).filter(|(_, key)| *key == lane.key).map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// Returns the maximum number of rows that a claim of so many jobs in so many limit groups makes.
    pub(super) fn rows_max(claimed: usize, groups: usize) -> usize {
        claimed / ROW_MAX + groups
    }

    /// Adds claimed jobs of a limit group, each with its key. `next_number` numbers new rows.
    pub(super) fn add(
        &mut self,
        group: i32,
        lease_us: i64,
        jobs: &[(i64, &str)],
        mut next_number: impl FnMut() -> i64,
    ) {
        for jobs in jobs.chunks(ROW_MAX) {
            let first = jobs[0].1;
            let has_one_key = jobs.iter().all(|(_, key)| *key == first);
            let keys = jobs.iter().take(if has_one_key { 1 } else { jobs.len() });
            let keys = keys.map(|(_, key)| (*key).to_owned()).collect();
            let ids = jobs.iter().map(|(id, _)| *id).collect();
            let number = next_number();
            self.0.push(RunningRow { number, group, ids, keys, lease_us, is_stored: false, is_changed: true });
        }
    }

    /// Removes jobs that ended. Returns how many of them were running.
    pub(super) fn remove(&mut self, ended: &HashSet<i64>) -> usize {
        let mut removed = 0;
        for row in self.0.iter_mut().filter(|_| !ended.is_empty()) {
            let stays: Vec<bool> = row.ids.iter().map(|id| !ended.contains(id)).collect();
            let gone = stays.iter().filter(|stays| !**stays).count();
            if gone == 0 {
                continue;
            }
            if row.keys.len() == row.ids.len() && gone < row.ids.len() {
                let mut stay = stays.iter();
                row.keys.retain(|_| stay.next().is_some_and(|stays| *stays));
            }
            row.ids.retain(|id| !ended.contains(id));
            row.is_changed = true;
            removed += gone;
        }
        removed
    }

    /// Takes the changes since the last call, to write them. From then on they count as stored.
    pub(super) fn take_changes(&mut self) -> RunningChanges {
        let mut changes = RunningChanges::default();
        for row in self.0.iter_mut().filter(|row| row.is_changed) {
            if row.ids.is_empty() {
                changes.deleted.extend(row.is_stored.then_some(row.number));
            } else if row.is_stored {
                changes.updated.add(row);
            } else {
                changes.inserted.add(row);
            }
            (row.is_stored, row.is_changed) = (true, false);
        }
        self.0.retain(|row| !row.ids.is_empty());
        changes
    }
}

/// The first columns of `RowColumns`.
const ROW_COLUMNS: &str =
    "number bigint, limit_group int, start int, stop int, key_start int, key_stop int, lease_us bigint";

/// Rows as columns. Their lists follow each other in one array, each from a start to a stop.
#[derive(Debug, Default)]
struct RowColumns {
    numbers: Vec<i64>,
    groups: Vec<i32>,
    starts: Vec<i32>,
    stops: Vec<i32>,
    key_starts: Vec<i32>,
    key_stops: Vec<i32>,
    ids: Vec<i64>,
    keys: Vec<String>,
    leases_us: Vec<i64>,
}

impl RowColumns {
    fn add(&mut self, row: &RunningRow) {
        self.numbers.push(row.number);
        self.groups.push(row.group);
        self.leases_us.push(row.lease_us);
        self.starts.push(self.ids.len() as i32 + 1);
        self.key_starts.push(self.keys.len() as i32 + 1);
        self.ids.extend(&row.ids);
        self.keys.extend(row.keys.iter().cloned());
        self.stops.push(self.ids.len() as i32);
        self.key_stops.push(self.keys.len() as i32);
    }

    async fn write(&self, session: &Session, text: &str) -> Result<(), SessionError> {
        let args = [
            (&self.numbers as _, Type::INT8_ARRAY),
            (&self.groups as _, Type::INT4_ARRAY),
            (&self.starts as _, Type::INT4_ARRAY),
            (&self.stops as _, Type::INT4_ARRAY),
            (&self.key_starts as _, Type::INT4_ARRAY),
            (&self.key_stops as _, Type::INT4_ARRAY),
            (&self.leases_us as _, Type::INT8_ARRAY),
            (&self.ids as _, Type::INT8_ARRAY),
            (&self.keys as _, Type::TEXT_ARRAY),
        ];
        session.query_if(!self.numbers.is_empty(), text, &args).await.map(drop)
    }
}

/// The changes of a transaction to the table `running`.
#[derive(Debug, Default)]
pub(super) struct RunningChanges {
    deleted: Vec<i64>,
    updated: RowColumns,
    inserted: RowColumns,
}

impl RunningChanges {
    pub(super) async fn write(&self, session: &Session) -> Result<(), SessionError> {
        let delete = "DELETE FROM $schema.running WHERE number = ANY($1)";
        let update = format!(
            "UPDATE $schema.running SET ids = ($8::bigint[])[start:stop], keys = ($9::text[])[key_start:key_stop]
                    FROM {} AS new
                    WHERE running.number = new.number",
            unnest(ROW_COLUMNS)
        );
        let insert = format!(
            "INSERT INTO $schema.running (number, limit_group, lease_us, ids, keys)
                   SELECT number, limit_group, lease_us, ($8::bigint[])[start:stop], ($9::text[])[key_start:key_stop]
                   FROM {} AS new",
            unnest(ROW_COLUMNS)
        );
        let delete_args = [(&self.deleted as _, Type::INT8_ARRAY)];
        futures_util::try_join!(
            session.query_if(!self.deleted.is_empty(), delete, &delete_args),
            self.updated.write(session, &update),
            self.inserted.write(session, &insert),
        )?;
        Ok(())
    }
}
