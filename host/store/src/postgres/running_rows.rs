//! Held: who runs in the groups whose locks are held, as the database has it and as this transaction leaves it.
//!
//! Read whole: a few bytes for each job that runs. To keep an index of running jobs in its place costs each claim and each end.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::lane_rows::LaneRow;
use super::session::{Session, SessionError};
use super::unnest::unnested;

/// Jobs in one row: as many as the server keeps in the row itself.
const ROW_MAX: usize = 64;

pub(super) const READ_HELD: &str =
    "SELECT number, grp, ids, keys FROM wharf.held WHERE grp = ANY(current_setting('wharf.locked')::int[])";

/// Some of the jobs of one claim.
#[derive(Debug)]
struct HeldRow {
    number: i64,
    group: i32,
    ids: Vec<i64>,
    /// One for each id, or one for all.
    keys: Vec<String>,
    /// How long their leases are, each time; not known of those that were read, and not needed.
    lease: i64,
    stored: bool,
    changed: bool,
}

impl HeldRow {
    fn jobs(&self) -> impl Iterator<Item = (i64, &str)> {
        let key = |place: usize| self.keys.get(place).or(self.keys.first()).map_or("", String::as_str);
        self.ids.iter().enumerate().map(move |(place, id)| (*id, key(place)))
    }
}

#[derive(Debug, Default)]
pub(super) struct Held(Vec<HeldRow>);

/// How many jobs run, by lane and by group.
#[derive(Debug, Default)]
pub(super) struct Counts<'h> {
    lanes: HashMap<(i32, &'h str), u32>,
    groups: HashMap<i32, u32>,
}

impl Counts<'_> {
    pub(super) fn of_lane(&self, lane: &LaneRow) -> u32 {
        self.lanes.get(&(lane.group, lane.key.as_str())).copied().unwrap_or_default()
    }

    pub(super) fn of_group(&self, group: i32) -> u32 {
        self.groups.get(&group).copied().unwrap_or_default()
    }
}

impl Held {
    pub(super) fn of(found: &[Row]) -> Held {
        let row = |row: &Row| HeldRow {
            number: row.get(0),
            group: row.get(1),
            ids: row.get(2),
            keys: row.get(3),
            lease: 0,
            stored: true,
            changed: false,
        };
        Held(found.iter().map(row).collect())
    }

    pub(super) fn counts(&self) -> Counts<'_> {
        let mut counts = Counts::default();
        for row in &self.0 {
            *counts.groups.entry(row.group).or_default() += row.ids.len() as u32;
            match row.keys.as_slice() {
                [key] => *counts.lanes.entry((row.group, key)).or_default() += row.ids.len() as u32,
                keys => keys.iter().for_each(|key| *counts.lanes.entry((row.group, key)).or_default() += 1),
            }
        }
        counts
    }

    /// The running jobs of a lane, by id.
    pub(super) fn of_lane(&self, lane: &LaneRow) -> Vec<i64> {
        let rows = self.0.iter().filter(|row| row.group == lane.group);
        let mut ids: Vec<i64> =
            rows.flat_map(HeldRow::jobs).filter(|(_, key)| *key == lane.key).map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// How many rows a claim of so many jobs makes, at most.
    pub(super) fn rows_of(claimed: usize, groups: usize) -> usize {
        claimed / ROW_MAX + groups
    }

    /// Jobs of a group begin to run, with leases of this length.
    pub(super) fn take(&mut self, group: i32, lease: i64, jobs: &[(i64, &str)], mut number: impl FnMut() -> i64) {
        for jobs in jobs.chunks(ROW_MAX) {
            let first = jobs[0].1;
            let alike = jobs.iter().all(|(_, key)| *key == first);
            let keys = jobs.iter().take(if alike { 1 } else { jobs.len() }).map(|(_, key)| (*key).to_owned()).collect();
            let ids = jobs.iter().map(|(id, _)| *id).collect();
            self.0.push(HeldRow { number: number(), group, ids, keys, lease, stored: false, changed: true });
        }
    }

    /// Jobs run no more. Returns how many of them did.
    pub(super) fn release(&mut self, ended: &HashSet<i64>) -> usize {
        let mut released = 0;
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
            row.changed = true;
            released += gone;
        }
        released
    }

    /// What is not written yet, as it is to be written. From then on it counts as written.
    pub(super) fn take_changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        for row in self.0.iter_mut().filter(|row| row.changed) {
            if row.ids.is_empty() {
                changes.gone.extend(row.stored.then_some(row.number));
            } else if row.stored {
                changes.left.add(row);
            } else {
                changes.new.add(row);
            }
            (row.stored, row.changed) = (true, false);
        }
        self.0.retain(|row| !row.ids.is_empty());
        changes
    }
}

/// The first of `Columns`.
const COLUMNS: &str = "number bigint, grp int, start int, stop int, key_start int, key_stop int, lease bigint";

/// Rows as columns: those that are lists follow each other in one, from a start to a stop.
#[derive(Debug, Default)]
struct Columns {
    numbers: Vec<i64>,
    groups: Vec<i32>,
    starts: Vec<i32>,
    stops: Vec<i32>,
    key_starts: Vec<i32>,
    key_stops: Vec<i32>,
    ids: Vec<i64>,
    keys: Vec<String>,
    leases: Vec<i64>,
}

impl Columns {
    fn add(&mut self, row: &HeldRow) {
        self.numbers.push(row.number);
        self.groups.push(row.group);
        self.leases.push(row.lease);
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
            (&self.leases as _, Type::INT8_ARRAY),
            (&self.ids as _, Type::INT8_ARRAY),
            (&self.keys as _, Type::TEXT_ARRAY),
        ];
        session.ask_if(!self.numbers.is_empty(), text, &args).await.map(drop)
    }
}

/// What a transaction changes of who runs.
#[derive(Debug, Default)]
pub(super) struct Changes {
    gone: Vec<i64>,
    left: Columns,
    new: Columns,
}

impl Changes {
    pub(super) async fn write(&self, session: &Session) -> Result<(), SessionError> {
        let gone = "DELETE FROM wharf.held WHERE number = ANY($1)";
        let left = format!(
            "UPDATE wharf.held SET ids = ($8::bigint[])[start:stop], keys = ($9::text[])[key_start:key_stop]
                    FROM {} AS new
                    WHERE held.number = new.number",
            unnested(COLUMNS)
        );
        let new = format!(
            "INSERT INTO wharf.held (number, grp, lease, ids, keys)
                   SELECT number, grp, lease, ($8::bigint[])[start:stop], ($9::text[])[key_start:key_stop]
                   FROM {} AS new",
            unnested(COLUMNS)
        );
        let gone_args = [(&self.gone as _, Type::INT8_ARRAY)];
        futures_util::try_join!(
            session.ask_if(!self.gone.is_empty(), gone, &gone_args),
            self.left.write(session, &left),
            self.new.write(session, &new),
        )?;
        Ok(())
    }
}
