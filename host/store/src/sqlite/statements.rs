//! The statements that every job, or every lane of a claim, passes through. They stay prepared as long as the writer lives:
//! finding each again by its text would be a twentieth of the writer's work.

use rusqlite::{Connection, Statement};

pub(super) struct Statements<'c> {
    /// Inserts a job's row.
    pub(super) insert_job: LazyStatement<'c>,
    /// Adds a job to the ready ones.
    pub(super) insert_ready: LazyStatement<'c>,
    /// Reads the first jobs of a line, with all that their leases need.
    pub(super) select_first: LazyStatement<'c>,
    /// Removes the first jobs of a line from the ready ones.
    pub(super) delete_first: LazyStatement<'c>,
    /// Updates a job's row at the end of an attempt.
    pub(super) update_ended: LazyStatement<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn new(conn: &'c Connection) -> Statements<'c> {
        let lazy = |sql| LazyStatement { conn, sql, prepared: None };
        Statements {
            insert_job: lazy(
                "INSERT INTO jobs (id, state, limit_group, key, task, priority, due_at, enqueued_at, token, batch, topic,
                     payload_bytes, payload, padding, parent, generation, tick)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, zeroblob(?14), ?15, ?16, ?17)
                 ON CONFLICT (id) DO NOTHING",
            ),
            insert_ready: lazy("INSERT INTO ready (line, rank, due_at, id) VALUES (?1, ?2, ?3, ?4)"),
            select_first: lazy(
                "SELECT ready.id, rank, ready.due_at, payload_bytes, attempt, failures, crashes, batch, topic, payload,
                     generation, tick
                 FROM ready CROSS JOIN jobs ON jobs.id = ready.id
                 WHERE line = ?1 ORDER BY rank, ready.due_at, ready.id LIMIT ?2 OFFSET ?3",
            ),
            delete_first: lazy("DELETE FROM ready WHERE line = ?1 AND (rank, due_at, id) <= (?2, ?3, ?4)"),
            update_ended: lazy(
                "UPDATE jobs SET state = ?2, due_at = coalesce(?3, due_at), attempt = ?4, failures = ?5, crashes = ?6,
                     cancel_requested = ?7, started_at = ?8, finished_at = ?9, queue_wait_us = ?10, cpu_us = ?11,
                     wall_us = ?12, memory_peak_bytes = ?13, in_bytes = ?14, out_bytes = ?15, output = ?16, node = NULL,
                     lease_expires_at = NULL, padding = zeroblob(?17)
                 WHERE id = ?1",
            ),
        }
    }
}

/// A statement that is prepared on first use and then stays prepared.
pub(super) struct LazyStatement<'c> {
    conn: &'c Connection,
    sql: &'static str,
    prepared: Option<Statement<'c>>,
}

impl<'c> LazyStatement<'c> {
    /// Returns the prepared statement.
    pub(super) fn prepared(&mut self) -> rusqlite::Result<&mut Statement<'c>> {
        let statement = match self.prepared.take() {
            Some(statement) => statement,
            None => self.conn.prepare(self.sql)?,
        };
        Ok(self.prepared.insert(statement))
    }
}
