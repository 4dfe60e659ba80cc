//! Finding jobs by a query, a bounded part of the store at a time.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wharf_core::backlog::Backlog;
use wharf_core::bounds;
use wharf_core::find::{AsOf, JobCursor, JobOrder, JobQuery};
use wharf_core::job::Job;
use wharf_core::limits::LimitTable;
use wharf_core::time::Timestamp;

use super::error::StoreError;

/// Finds jobs by queries.
#[async_trait]
pub trait JobFinder: Send + Sync {
    /// Looks at jobs behind a place of a list, in the order of the list, and returns those that meet the query, without
    /// payload and result. It ends with as many as were asked for, or once it has looked for long enough: no query takes long,
    /// however many jobs there are.
    async fn find(&self, request: FindRequest) -> Result<FindPage, StoreError>;

    /// Counts the waiting and the running jobs by task, and says why those wait that it looks at: as many as `bounds::BACKLOG_ROWS` and
    /// `time` allow, however many wait. `declared` are the limits that manifests and settings declare.
    async fn backlog(&self, declared: Arc<LimitTable>, time: Duration) -> Result<Backlog, StoreError>;
}

/// A request to find jobs.
#[derive(Clone, Debug)]
pub struct FindRequest {
    /// The conditions that jobs must meet.
    pub query: Arc<JobQuery>,
    /// The order of the list.
    pub order: JobOrder,
    /// If present, the jobs are those that met the conditions when a bulk operation began, and have not moved on since.
    pub as_of: Option<AsOf>,
    /// The place from which the list goes on; `None` is its beginning.
    pub after: Option<JobCursor>,
    /// Maximum number of jobs to find, from 1 to `bounds::PAGE_MAX`.
    pub max: u32,
    /// Maximum number of jobs to look at. A store looks at `bounds::FIND_BATCH` more at most.
    pub rows_max: u64,
    /// Time after which the store stops looking.
    pub time: Duration,
    /// The limits that manifests and settings declare, which decide if waiting jobs are blocked.
    pub declared: Arc<LimitTable>,
    /// The memory that is reserved for the search. The store drops it when the search has ended, which it may do after its caller has gone away.
    pub room: Option<Arc<dyn Any + Send + Sync>>,
}

impl FindRequest {
    /// Returns a request for the first jobs that meet a query, with the usual bounds.
    pub fn new(query: Arc<JobQuery>, declared: Arc<LimitTable>, max: u32) -> FindRequest {
        FindRequest {
            query,
            order: JobOrder::Newest,
            as_of: None,
            after: None,
            max,
            rows_max: bounds::FIND_ROWS_MAX,
            time: bounds::FIND_TIME,
            declared,
            room: None,
        }
    }
}

/// A part of a list of jobs that meet a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FindPage {
    /// The jobs, with the first line of their reports.
    pub jobs: Vec<Job>,
    /// Number of jobs that were looked at. Jobs that an index rules out are not counted.
    pub looked_at: u64,
    /// When the last job that was looked at was enqueued or finished, by the order of the list.
    pub until: Option<Timestamp>,
    /// Number of jobs among those that have moved on since the moment of [`FindRequest::as_of`], and are not found.
    pub moved_on: u64,
    /// The number of jobs before each found one that have moved on.
    pub moved_on_before: Vec<u64>,
    /// The place from which the list goes on; `None` if it has ended.
    pub next: Option<JobCursor>,
}
