//! What the numbers of tasks and groups mean. They are never removed, so that what is once known stays known.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio_postgres::types::Type;
use wharf_core::ids::Group;
use wharf_core::job::NewJob;
use wharf_core::key::Lane;

use super::rows::{key_text, parse};
use super::session::{Session, SessionError, damaged};

/// A lane as the database names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneRow {
    pub(super) group: i32,
    pub(super) key: String,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<String, i32>,
    texts: HashMap<i32, String>,
    /// Which tasks were seen in which groups.
    places: HashSet<(i32, i32)>,
}

impl Names {
    /// Gives these names numbers. To be called before a transaction: what that undoes must not be remembered.
    pub(super) async fn learn(&mut self, session: &Session, names: BTreeSet<&str>) -> Result<(), SessionError> {
        let new: Vec<&str> = names.into_iter().filter(|name| !self.numbers.contains_key(*name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let text = "INSERT INTO wharf.names (text) SELECT unnest($1::text[]) EXCEPT SELECT text FROM wharf.names
                    ON CONFLICT DO NOTHING";
        session.ask_outside(text, &[(&new, Type::TEXT_ARRAY)]).await?;
        let text = "SELECT id, text FROM wharf.names WHERE text = ANY($1)";
        for row in session.ask_outside(text, &[(&new, Type::TEXT_ARRAY)]).await? {
            self.keep(row.get(0), row.get(1));
        }
        Ok(())
    }

    /// Says in which groups the tasks of these jobs are, where that is not known yet.
    pub(super) async fn place(&mut self, session: &Session, jobs: &[&NewJob]) -> Result<(), SessionError> {
        let pair = |job: &&NewJob| Ok((self.number(job.task.as_str())?, self.number(job.lane.group.as_str())?));
        let pairs = jobs.iter().map(pair).collect::<Result<BTreeSet<(i32, i32)>, SessionError>>()?;
        let new: Vec<(i32, i32)> = pairs.into_iter().filter(|pair| !self.places.contains(pair)).collect();
        if !new.is_empty() {
            let (tasks, groups): (Vec<i32>, Vec<i32>) = new.iter().copied().unzip();
            let text = "INSERT INTO wharf.places (task, grp) SELECT * FROM unnest($1::int[], $2::int[]) ON CONFLICT DO NOTHING";
            session.ask_outside(text, &[(&tasks, Type::INT4_ARRAY), (&groups, Type::INT4_ARRAY)]).await?;
            self.places.extend(new);
        }
        Ok(())
    }

    fn keep(&mut self, number: i32, text: String) {
        self.numbers.insert(text.clone(), number);
        self.texts.insert(number, text);
    }

    /// The number of a name that was learned.
    pub(super) fn number(&self, name: &str) -> Result<i32, SessionError> {
        self.numbers.get(name).copied().ok_or_else(|| damaged("a name", name))
    }

    pub(super) fn lane_row(&self, lane: &Lane) -> Result<LaneRow, SessionError> {
        Ok(LaneRow { group: self.number(lane.group.as_str())?, key: key_text(lane).to_owned() })
    }

    /// Makes sure that the texts of these numbers are known.
    pub(super) async fn read(&mut self, session: &Session, numbers: &[i32]) -> Result<(), SessionError> {
        if numbers.iter().any(|number| !self.texts.contains_key(number)) {
            for row in session.ask("SELECT id, text FROM wharf.names", &[]).await? {
                self.keep(row.get(0), row.get(1));
            }
        }
        Ok(())
    }

    pub(super) fn text(&self, number: i32) -> Result<&str, SessionError> {
        self.texts.get(&number).map(String::as_str).ok_or_else(|| damaged("a number of a name", &number.to_string()))
    }

    pub(super) fn group(&self, number: i32) -> Result<Group, SessionError> {
        parse("a group", self.text(number)?)
    }
}
