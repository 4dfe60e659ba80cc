//! How what decided why jobs waited when a bulk operation began is written as columns, and read back.

use wharf_core::find::{AsOf, WaitFact, WaitView};
use wharf_core::ids::JobId;
use wharf_core::key::Lane;
use wharf_core::limits::{Limits, Override};

use crate::columns::{DamagedData, key, key_text, parse};

/// The columns of the table `operation_waits`, in the order of [`WaitColumns`].
pub(crate) const WAIT_COLUMNS: &str = "kind, name, key, per_key, jobs";

/// The columns `kind`: a hold, a limit, the running jobs of a lane, and the row that each operation has which keeps any.
pub(crate) const HELD: i16 = 0;
const LIMITED: i16 = 1;
const RUNNING: i16 = 2;
pub(crate) const WHOLE: i16 = 3;

/// The columns of a [`WaitFact`].
#[derive(Debug)]
pub(crate) struct WaitColumns {
    pub(crate) kind: i16,
    /// The scope of a hold, or a limit group.
    pub(crate) name: String,
    /// Empty if there is none.
    pub(crate) key: String,
    pub(crate) per_key: Option<i64>,
    /// The total of a limit, or the number of running jobs.
    pub(crate) jobs: Option<i64>,
}

impl From<&WaitFact> for WaitColumns {
    fn from(fact: &WaitFact) -> WaitColumns {
        let (kind, name, key, per_key, jobs) = match fact {
            WaitFact::Whole => (WHOLE, String::new(), None, None, None),
            WaitFact::Held(scope) => (HELD, scope.to_string(), None, None, None),
            WaitFact::Limited(Override { group, key, limits }) => {
                (LIMITED, group.to_string(), key.as_ref(), limits.per_key, limits.total)
            }
            WaitFact::Running { lane, jobs } => (RUNNING, lane.group.to_string(), lane.key.as_ref(), None, Some(*jobs)),
        };
        let key = key_text(key).to_owned();
        WaitColumns { kind, name, key, per_key: per_key.map(i64::from), jobs: jobs.map(i64::from) }
    }
}

impl WaitColumns {
    /// Converts the columns back.
    ///
    /// # Errors
    /// If one of them has a value that is not valid.
    pub(crate) fn fact(self) -> Result<WaitFact, DamagedData> {
        let WaitColumns { kind, name, key: key_text, per_key, jobs } = self;
        let number = |number: Option<i64>| number.map(|number| number as u32);
        Ok(match kind {
            WHOLE => WaitFact::Whole,
            HELD => WaitFact::Held(parse("scope of a hold", &name)?),
            LIMITED => WaitFact::Limited(Override {
                group: parse("limit group", &name)?,
                key: key(&key_text)?,
                limits: Limits { per_key: number(per_key), total: number(jobs) },
            }),
            RUNNING => WaitFact::Running {
                lane: Lane { group: parse("limit group", &name)?, key: key(&key_text)? },
                jobs: number(jobs).unwrap_or_default(),
            },
            other => return Err(DamagedData::invalid("kind of operation_waits", &other.to_string())),
        })
    }
}

/// Describes an open operation of which nothing tells why jobs waited when it began.
pub(crate) fn lost_waits(operation: JobId) -> DamagedData {
    DamagedData::inconsistent(format_args!(
        "the rows of operation_waits are missing of the open bulk operation {operation}, so nobody knows its jobs; cancel it, and start another one"
    ))
}

/// Collects the facts of an operation into a view; `None` if none were kept, or not all of them.
///
/// # Errors
/// If a fact could not be read.
pub(crate) fn view_of<E>(
    as_of: AsOf,
    facts: impl IntoIterator<Item = Result<WaitFact, E>>,
) -> Result<Option<WaitView>, E> {
    let (mut view, mut is_whole) = (WaitView { now: as_of.at, ..WaitView::default() }, false);
    for fact in facts {
        let fact = fact?;
        is_whole |= fact == WaitFact::Whole;
        view.add(fact);
    }
    Ok(is_whole.then_some(view))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_back_from_their_columns() {
        let group = || "g".parse().unwrap();
        let key = || Some("a".parse().unwrap());
        let limits = Limits { per_key: Some(0), total: None };
        for fact in [
            WaitFact::Whole,
            WaitFact::Held("group:g key:a".parse().unwrap()),
            WaitFact::Limited(Override { group: group(), key: None, limits }),
            WaitFact::Limited(Override {
                group: group(),
                key: key(),
                limits: Limits { per_key: None, total: Some(7) },
            }),
            WaitFact::Running { lane: Lane { group: group(), key: key() }, jobs: 3 },
            WaitFact::Running { lane: Lane { group: group(), key: None }, jobs: u32::MAX },
        ] {
            assert_eq!(WaitColumns::from(&fact).fact().unwrap(), fact);
        }
        let unknown = WaitColumns { kind: 9, name: "g".to_owned(), key: String::new(), per_key: None, jobs: None };
        assert!(unknown.fact().is_err());
    }
}
