//! Payloads and results that are too large for the job's own row, in tables of their own.
//!
//! SQLite copies a value that is bound to a statement twice before it is in its pages, and one that a statement returns once
//! more than needed. A large value is therefore written straight to its pages, and read straight from them.

use std::ffi::CStr;

use rusqlite::{Connection, OptionalExtension, params};
use wharf_core::shared_bytes::SharedBytes;

use super::rows::bytes;

/// Size in bytes from which a value is written and read in place: opening it costs as much as copying some ten KiB.
const IN_PLACE_BYTES_MIN: usize = 64 * 1024;
/// Size in bytes up to which a value is written in place. Its pages are written twice if they don't stay in the writer's cache
/// until the bytes follow.
const WRITTEN_IN_PLACE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One of the tables of large values, which are found by their jobs.
pub(super) struct LargeValues {
    table: &'static CStr,
    column: &'static CStr,
    insert: &'static str,
    /// Inserts a value of so many zeros.
    insert_zeros: &'static str,
    select: &'static str,
}

/// The payloads that are not in the row of their job.
pub(super) const PAYLOADS: LargeValues = LargeValues {
    table: c"payloads",
    column: c"payload",
    insert: "INSERT INTO payloads (job, payload) VALUES (?1, ?2)",
    insert_zeros: "INSERT INTO payloads (job, payload) VALUES (?1, zeroblob(?2))",
    select: "SELECT payload FROM payloads WHERE job = ?1",
};

/// The results that are not in the row of their job.
pub(super) const OUTPUTS: LargeValues = LargeValues {
    table: c"outputs",
    column: c"output",
    insert: "INSERT INTO outputs (job, output) VALUES (?1, ?2)",
    insert_zeros: "INSERT INTO outputs (job, output) VALUES (?1, zeroblob(?2))",
    select: "SELECT output FROM outputs WHERE job = ?1",
};

impl LargeValues {
    /// Inserts the value of a job.
    pub(super) fn insert(&self, conn: &Connection, job: i64, value: &[u8]) -> rusqlite::Result<()> {
        if !(IN_PLACE_BYTES_MIN..=WRITTEN_IN_PLACE_BYTES_MAX).contains(&value.len()) {
            conn.prepare_cached(self.insert)?.execute(params![job, value])?;
            return Ok(());
        }
        conn.prepare_cached(self.insert_zeros)?.execute(params![job, value.len() as i64])?;
        let mut blob = conn.blob_open(c"main", self.table, self.column, job, false)?;
        blob.write_at(value, 0)?;
        blob.close()
    }

    /// Reads the value of a job, of about this size in bytes; `None` if there is none.
    pub(super) fn read(&self, conn: &Connection, job: i64, size: u64) -> rusqlite::Result<Option<SharedBytes>> {
        // A value that can't be opened is read by a statement, whose error or empty result says why.
        if size >= IN_PLACE_BYTES_MIN as u64
            && let Ok(blob) = conn.blob_open(c"main", self.table, self.column, job, true)
        {
            let mut value = vec![0; blob.len()];
            blob.read_at_exact(&mut value, 0)?;
            return Ok(Some(value.into()));
        }
        let mut select = conn.prepare_cached(self.select)?;
        Ok(select.query_row([job], |row| Ok(bytes(row.get_ref(0)?))).optional()?.flatten())
    }
}
