//! How many jobs of each task wait, due or not: a sum that each transaction changes by what it does, so that nobody reads the
//! jobs to know.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::session::{Session, SessionError};

/// The number of shards. A host's transactions come one after the other; those of other hosts mostly use another shard.
const SHARDS: u64 = 16;

/// Changes of the counts by a transaction, by the number of the task.
#[derive(Debug, Default)]
pub(super) struct WaitingWrites(BTreeMap<i32, i64>);

impl WaitingWrites {
    /// Adds to the number of waiting jobs of a task.
    pub(super) fn add(&mut self, task: i32, change: i64) {
        if change != 0 {
            *self.0.entry(task).or_default() += change;
        }
    }

    /// Writes the changes to the shard of a transaction, by its id. Must be called last, after the changes of values: the
    /// rows are locked until the transaction ends, in the order of tasks, and nothing else may be waited for then.
    pub(super) async fn write(&self, session: &Session, transaction: &str) -> Result<(), SessionError> {
        let changes = || self.0.iter().filter(|(_, change)| **change != 0);
        let tasks: Vec<i32> = changes().map(|(task, _)| *task).collect();
        let jobs: Vec<i64> = changes().map(|(_, change)| *change).collect();
        let shard = (transaction.parse::<u64>().unwrap_or_default() % SHARDS) as i32;
        let text = "INSERT INTO $schema.waiting_jobs (shard, task, jobs)
                    SELECT $1, task, jobs FROM unnest($2::int[], $3::bigint[]) AS changed (task, jobs) ORDER BY task
                    ON CONFLICT (shard, task) DO UPDATE SET jobs = waiting_jobs.jobs + excluded.jobs";
        let args = [(&shard as _, Type::INT4), (&tasks as _, Type::INT4_ARRAY), (&jobs as _, Type::INT8_ARRAY)];
        session.query_if(!tasks.is_empty(), text, &args).await.map(drop)
    }
}
