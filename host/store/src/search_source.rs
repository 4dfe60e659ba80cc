//! The jobs among which a search looks, the same for both databases; each reads them in its own way.

use wharf_core::find::{JobCursor, JobOrder, JobQuery};
use wharf_core::fingerprint::Fingerprint;
use wharf_core::ids::JobId;
use wharf_core::job::StateName;

use crate::columns::{CANCELLED, DELAYED, FAILED, READY, RUNNING, SUCCEEDED, signed, timestamp_us};
use crate::store::FindRequest;

/// The jobs among which a search looks: the smallest set of jobs that an index names and in which all are that may meet the
/// query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// All jobs, by ID.
    All,
    /// All finished jobs, by the time at which they finished.
    Finished,
    /// The failed jobs, the cancelled ones, or both.
    Unsuccessful(Vec<StateName>),
    /// The jobs that failed with one of these fingerprints.
    Fingerprints(Vec<Fingerprint>),
    /// The jobs of a durable broadcast.
    Batch(JobId),
    /// The jobs that wait, that run, or both. A store lists them if only few wait; otherwise it looks among all jobs.
    Unfinished {
        /// Jobs that wait.
        waiting: bool,
        /// Jobs that run.
        running: bool,
    },
    /// The jobs with these numbers, in descending order.
    Listed(Vec<i64>),
}

impl Source {
    /// Returns the jobs among which a search looks.
    pub(crate) fn of(request: &FindRequest) -> Source {
        let query = &request.query;
        if request.order == JobOrder::Finished {
            return Source::Finished;
        }
        if !query.ids().is_empty() {
            return Source::listed(query.ids().iter().map(|id| signed(id.number())).collect());
        }
        if let Some(batch) = query.batch() {
            return Source::Batch(batch);
        }
        if !query.fingerprints().is_empty() {
            return Source::Fingerprints(query.fingerprints().to_vec());
        }
        let states: Vec<StateName> = StateName::ALL.into_iter().filter(|state| query.may_be(*state)).collect();
        if states.is_empty() {
            return Source::listed(Vec::new());
        }
        if states.iter().all(|state| matches!(state, StateName::Failed | StateName::Cancelled)) {
            return Source::Unsuccessful(states);
        }
        if states.iter().any(|state| state.is_final()) {
            return Source::All;
        }
        let has = |state| states.contains(&state);
        Source::Unfinished { waiting: has(StateName::Waiting), running: has(StateName::Running) }
    }

    /// Returns the jobs with these numbers.
    pub(crate) fn listed(mut ids: Vec<i64>) -> Source {
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        ids.dedup();
        Source::Listed(ids)
    }
}

/// Returns the numbers of the columns `state` of jobs that may meet a query.
pub(crate) fn state_numbers(query: &JobQuery) -> Vec<i16> {
    let wanted = StateName::ALL.into_iter().filter(|state| query.may_be(*state));
    wanted.flat_map(|state| numbers_of(state).iter().copied()).collect()
}

/// Returns the columns `state` of jobs in a state.
pub(crate) const fn numbers_of(state: StateName) -> &'static [i16] {
    match state {
        StateName::Waiting => &[DELAYED, READY],
        StateName::Running => &[RUNNING],
        StateName::Succeeded => &[SUCCEEDED],
        StateName::Failed => &[FAILED],
        StateName::Cancelled => &[CANCELLED],
    }
}

/// The part of a list that is still to be looked at, as columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    /// The lowest ID.
    pub(crate) lowest: i64,
    /// All IDs are below this one.
    pub(crate) below: i64,
    /// The earliest end, in the order of the ends.
    pub(crate) ended_since: i64,
    /// All ends are before this place: a moment, and of those that ended then, an ID below which they are.
    pub(crate) ended_before: (i64, i64),
}

impl Rest {
    /// Returns the part of a request's list that is behind a place. `ids_are_ahead` is true if IDs are ahead of the store's clock.
    pub(crate) fn behind(place: Option<JobCursor>, query: &JobQuery, ids_are_ahead: bool) -> Rest {
        let (lowest, below) = query.id_range(ids_are_ahead);
        let below = place.map_or(below, |place| place.id.number().min(below));
        let (since, until) = query.finished();
        // The time before which all are, as the place behind the first job of that time.
        let start = until.map_or((i64::MAX, 0), |until| (timestamp_us(until), 0));
        let ended = place.and_then(|place| Some((timestamp_us(place.finished_at?), signed(place.id.number()))));
        Rest {
            lowest: signed(lowest),
            below: signed(below),
            ended_since: since.map_or(i64::MIN, timestamp_us),
            ended_before: ended.map_or(start, |place| place.min(start)),
        }
    }

    /// Returns those of some numbers, in descending order, that are in this part.
    pub(crate) fn of<'i>(&self, ids: &'i [i64]) -> impl Iterator<Item = i64> + 'i {
        let lowest = self.lowest;
        let start = ids.partition_point(|id| *id >= self.below);
        ids[start..].iter().copied().take_while(move |id| *id >= lowest)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wharf_core::time::Timestamp;

    use super::*;

    fn source(text: &str, order: JobOrder) -> Source {
        let query = JobQuery::parse(text, Timestamp::from_millis(1_000_000)).unwrap();
        Source::of(&FindRequest { order, ..FindRequest::new(Arc::new(query), Arc::default(), 1) })
    }

    #[test]
    fn a_search_looks_among_as_few_jobs_as_an_index_names() {
        let fingerprint = "f1:0000000000000001".parse().unwrap();
        let unsuccessful = |states: &[StateName]| Source::Unsuccessful(states.to_vec());
        let unfinished = |waiting, running| Source::Unfinished { waiting, running };
        for (text, expected) in [
            ("", Source::All),
            ("key:a", Source::All),
            ("digest:0123456789", Source::All),
            ("state:succeeded,failed", Source::All),
            ("state:waiting,failed", Source::All),
            ("state:failed", unsuccessful(&[StateName::Failed])),
            ("state:cancelled,failed key:a", unsuccessful(&[StateName::Failed, StateName::Cancelled])),
            ("text:why state:failed,succeeded", unsuccessful(&[StateName::Failed])),
            ("fingerprint:f1:0000000000000001 key:a", Source::Fingerprints(vec![fingerprint])),
            ("fingerprint:f1:0000000000000001 batch:0000000000007", Source::Batch(JobId::from_number(7).unwrap())),
            ("text:why state:succeeded", Source::Listed(vec![])),
            ("state:ready", unfinished(true, false)),
            ("state:running", unfinished(false, true)),
            ("state:running,waiting", unfinished(true, true)),
            ("id:0000000000007,0000000000008,0000000000007 state:failed", Source::Listed(vec![8, 7])),
        ] {
            assert_eq!(source(text, JobOrder::Newest), expected, "{text}");
            assert_eq!(source(text, JobOrder::Finished), Source::Finished, "{text}");
        }
    }

    #[test]
    fn the_rest_of_a_list_is_behind_its_place_and_within_the_query() {
        let query = JobQuery::default();
        let place = |number, at: Option<u64>| {
            let id = JobId::from_number(number).unwrap();
            Some(JobCursor { id, finished_at: at.map(Timestamp::from_micros) })
        };
        let rest = Rest::behind(place(7, None), &query, false);
        assert_eq!((rest.below, rest.lowest, rest.ended_since), (7, 0, i64::MIN));
        assert_eq!(rest.of(&[9, 7, 6, 1]).collect::<Vec<_>>(), [6, 1]);
        assert_eq!(Rest::behind(place(7, Some(5)), &query, false).ended_before, (5, 7));
        let query = JobQuery::parse("finished-until:1970-01-01T00:00:00.000004Z", Timestamp::ZERO).unwrap();
        assert_eq!(Rest::behind(place(7, Some(5)), &query, false).ended_before, (4, 0));
        assert_eq!(Rest::behind(place(7, Some(3)), &query, false).ended_before, (3, 7));
    }
}
