//! The numbers of tasks and limit groups, and lanes by these numbers. Numbers are never removed, so they can be cached for ever.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio_postgres::types::Type;
use wharf_core::ids::Group;
use wharf_core::job::NewJob;
use wharf_core::key::Lane;

use super::session::{Session, SessionError, value};
use crate::columns::{DamagedData, key_text, parse};

/// A lane as the tables contain it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneRow {
    /// The number of the limit group.
    pub(super) group: i32,
    /// Empty for jobs without a key.
    pub(super) key: String,
}

/// Splits lanes into the columns `limit_group` and `key`.
pub(super) fn lane_columns<'l>(lanes: impl IntoIterator<Item = &'l LaneRow>) -> (Vec<i32>, Vec<&'l str>) {
    lanes.into_iter().map(|lane| (lane.group, lane.key.as_str())).unzip()
}

/// A cache of the tables `names` and `task_groups`.
#[derive(Debug, Default)]
pub(super) struct LaneNames {
    numbers: HashMap<String, i32>,
    texts: HashMap<i32, String>,
    /// Tasks, each with a limit group of its jobs.
    task_groups: HashSet<(i32, i32)>,
}

impl LaneNames {
    /// Adds names to the table if they are new, and caches their numbers. Must be called outside a transaction: numbers that
    /// are rolled back must not be cached.
    pub(super) async fn add(&mut self, session: &Session, names: BTreeSet<&str>) -> Result<(), SessionError> {
        let new: Vec<&str> = names.into_iter().filter(|name| !self.numbers.contains_key(*name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let text = "INSERT INTO $schema.names (text) SELECT unnest($1::text[]) EXCEPT SELECT text FROM $schema.names
                    ON CONFLICT DO NOTHING";
        session.query_unprepared(text, &[(&new, Type::TEXT_ARRAY)]).await?;
        let text = "SELECT id, text FROM $schema.names WHERE text = ANY($1)";
        for row in session.query_unprepared(text, &[(&new, Type::TEXT_ARRAY)]).await? {
            self.cache(value(&row, "names", 0)?, value(&row, "names", 1)?);
        }
        Ok(())
    }

    /// Writes down the limit groups of these jobs' tasks, if they are new. Must be called outside a transaction.
    pub(super) async fn add_task_groups(&mut self, session: &Session, jobs: &[&NewJob]) -> Result<(), SessionError> {
        let pair = |job: &&NewJob| Ok((self.number(job.task.as_str())?, self.number(job.lane.group.as_str())?));
        let pairs = jobs.iter().map(pair).collect::<Result<BTreeSet<(i32, i32)>, SessionError>>()?;
        let new: Vec<(i32, i32)> = pairs.into_iter().filter(|pair| !self.task_groups.contains(pair)).collect();
        if !new.is_empty() {
            let (tasks, groups): (Vec<i32>, Vec<i32>) = new.iter().copied().unzip();
            let text = "INSERT INTO $schema.task_groups (task, limit_group) SELECT * FROM unnest($1::int[], $2::int[])
                        ON CONFLICT DO NOTHING";
            session.query_unprepared(text, &[(&tasks, Type::INT4_ARRAY), (&groups, Type::INT4_ARRAY)]).await?;
            self.task_groups.extend(new);
        }
        Ok(())
    }

    /// Reads the numbers of all tasks that jobs were ever enqueued for. Must be called outside a transaction.
    pub(super) async fn all_tasks(session: &Session) -> Result<Vec<i32>, SessionError> {
        let found = session.query_unprepared("SELECT DISTINCT task FROM $schema.task_groups", &[]).await?;
        found.iter().map(|row| value(row, "task_groups", 0)).collect()
    }

    fn cache(&mut self, number: i32, text: String) {
        self.numbers.insert(text.clone(), number);
        self.texts.insert(number, text);
    }

    /// Returns the number of a name that was added.
    pub(super) fn number(&self, name: &str) -> Result<i32, SessionError> {
        Ok(self.numbers.get(name).copied().ok_or_else(|| DamagedData::invalid("name", name))?)
    }

    /// Converts a lane whose limit group was added.
    pub(super) fn lane_row(&self, lane: &Lane) -> Result<LaneRow, SessionError> {
        Ok(LaneRow { group: self.number(lane.group.as_str())?, key: key_text(lane.key.as_ref()).to_owned() })
    }

    /// Caches the names of these numbers.
    pub(super) async fn load(&mut self, session: &Session, numbers: &[i32]) -> Result<(), SessionError> {
        if numbers.iter().any(|number| !self.texts.contains_key(number)) {
            for row in session.query("SELECT id, text FROM $schema.names", &[]).await? {
                self.cache(value(&row, "names", 0)?, value(&row, "names", 1)?);
            }
        }
        Ok(())
    }

    /// Returns the name of a number that is cached.
    pub(super) fn text(&self, number: i32) -> Result<&str, SessionError> {
        let text = self.texts.get(&number).map(String::as_str);
        Ok(text.ok_or_else(|| DamagedData::invalid("number of a name", &number.to_string()))?)
    }

    /// Returns the limit group of a number that is cached.
    pub(super) fn group(&self, number: i32) -> Result<Group, SessionError> {
        Ok(parse("limit group", self.text(number)?)?)
    }
}
