//! Statements that every job passes through, or every lane of a claim. They stay prepared as long as the writer: to find each
//! again by its text would be a twentieth of the writer's work.

use rusqlite::{Connection, Statement};

pub(super) struct Statements<'c> {
    /// A new job.
    pub(super) insert_job: Lasting<'c>,
    /// Its place among the ready ones.
    pub(super) add_ready: Lasting<'c>,
    /// The jobs of a line that come first, with all that their leases take.
    pub(super) read_first: Lasting<'c>,
    /// Those jobs are ready no more.
    pub(super) take_first: Lasting<'c>,
    /// The end of an attempt.
    pub(super) write_end: Lasting<'c>,
}

impl<'c> Statements<'c> {
    pub(super) fn of(conn: &'c Connection) -> Statements<'c> {
        let lasting = |sql| Lasting { conn, sql, prepared: None };
        Statements {
            insert_job: lasting(
                "INSERT INTO jobs (id, state, grp, key, task, priority, due, enqueued_at, token, batch, topic, bytes, payload, room)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, zeroblob(?14)) ON CONFLICT (id) DO NOTHING",
            ),
            add_ready: lasting("INSERT INTO ready (line, rank, due, id) VALUES (?1, ?2, ?3, ?4)"),
            read_first: lasting(
                "SELECT ready.id, -rank, ready.due, bytes, attempt, failures, crashes, batch, topic, payload
                 FROM ready CROSS JOIN jobs ON jobs.id = ready.id
                 WHERE line = ?1 ORDER BY rank, ready.due, ready.id LIMIT ?2 OFFSET ?3",
            ),
            take_first: lasting("DELETE FROM ready WHERE line = ?1 AND (rank, due, id) <= (?2, ?3, ?4)"),
            write_end: lasting(
                "UPDATE jobs SET state = ?2, due = coalesce(?3, due), attempt = ?4, failures = ?5, crashes = ?6, cancel_asked = ?7,
                     started_at = ?8, finished_at = ?9, queue_wait = ?10, guest = ?11, wall = ?12, memory_peak = ?13,
                     bytes_in = ?14, bytes_out = ?15, output = ?16, node = NULL, lease_until = NULL, room = zeroblob(?17)
                 WHERE id = ?1",
            ),
        }
    }
}

/// Prepared when it is first needed.
pub(super) struct Lasting<'c> {
    conn: &'c Connection,
    sql: &'static str,
    prepared: Option<Statement<'c>>,
}

impl<'c> Lasting<'c> {
    pub(super) fn prepared(&mut self) -> rusqlite::Result<&mut Statement<'c>> {
        let statement = match self.prepared.take() {
            Some(statement) => statement,
            None => self.conn.prepare(self.sql)?,
        };
        Ok(self.prepared.insert(statement))
    }
}
