//! The database file under its lock: its connections, its schema, and what SQLite's errors mean.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use rustix::process::{Resource, getrlimit};

use super::file_header::{APPLICATION_ID, FileHeader, unusable};
use super::lock::{FileLock, beside, log_bytes, real_path};
use crate::store::{OpenError, StoreError};

/// One script per schema version, in order; a file's `user_version` says how many of them were applied to it.
const MIGRATIONS: &[&str] = &[include_str!("../../migrations/sqlite/0001_schema.sql")];

/// Time for which a statement waits for another program that has locked the file, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The writer's page cache in KiB (16 MiB). Jobs are served in about the order in which they are on the disk, so that the
/// writer's working set is small however many wait; and SQLite scans the whole cache at each commit after two pages of an
/// index changed places.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// Prepared statements cached per connection: more than this store has, so that none is ever prepared twice.
const STATEMENT_CACHE: usize = 128;
/// More bytes than SQLite writes at once.
const WRITE_BYTES_MAX: u64 = 64 * 1024;

/// A database file that this process alone writes to.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    /// The path that the operator gave.
    path: PathBuf,
    /// The path with every link resolved: the log is beside this one.
    real: PathBuf,
    lock: FileLock,
}

impl DatabaseFile {
    /// Locks the file at `path`, and creates an empty one if there is none.
    ///
    /// # Errors
    /// If another host uses the file, or it can't be locked or written.
    pub(super) fn lock(path: &Path) -> Result<DatabaseFile, OpenError> {
        let lock = FileLock::acquire(path)?;
        Ok(DatabaseFile { path: path.to_owned(), real: real_path(path), lock })
    }

    /// Returns the path that the operator gave.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path with every link resolved.
    pub(super) fn real(&self) -> &Path {
        &self.real
    }

    /// Returns the metadata of the locked file, which is the one that is open.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.lock.database().metadata()
    }

    /// Opens the one connection that writes, and brings the schema to this version.
    ///
    /// # Errors
    /// If this version may not use the file, which then stays unchanged, or the file can't be used.
    pub(super) fn open_writer(&self) -> Result<Connection, OpenError> {
        let known = MIGRATIONS.len() as i64;
        let failed = |error: rusqlite::Error| unusable(&self.path, reason(&error));
        self.header().map_err(failed)?.check(&self.path, known)?;
        let mut conn = connect(&self.real, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        // Until the check below, closing the connection must leave the log unchanged.
        let keep_log = |conn: &Connection, keep| conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep);
        keep_log(&conn, true).map_err(failed)?;
        let header = FileHeader::query(&conn).map_err(failed)?;
        header.check(&self.path, known)?;
        keep_log(&conn, false).map_err(failed)?;
        set_up(&mut conn, header.schema_version as usize).map_err(failed)?;
        Ok(conn)
    }

    /// Reads the file's header without changing the file, its log or the log's index.
    fn header(&self) -> rusqlite::Result<FileHeader> {
        let unreadable = |code, text: String| rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text));
        let header = FileHeader::read(self.lock.database())
            .map_err(|error| unreadable(ffi::SQLITE_IOERR_READ, format!("could not read it: {error}")))?
            .ok_or_else(|| unreadable(ffi::SQLITE_NOTADB, String::new()))?;
        if header.is_of_wharf() || log_bytes(&self.real) == 0 {
            return Ok(header);
        }
        // The log may contain a header that the file doesn't have yet. SQLite shares its index of the log in a file beside
        // them, unless the connection has exclusive access.
        let conn = connect(&self.real, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
        FileHeader::query(&conn)
    }
}

/// Opens a connection.
pub(super) fn connect(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection belongs to one thread at a time: SQLite need not lock it as well.
    let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // Without this, a statement that could use a partial index is planned again for every value that is bound to it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

/// Returns the highest version of the schema that this version of Wharf knows.
pub(super) const fn schema_version() -> i64 {
    MIGRATIONS.len() as i64
}

/// Opens a connection that only reads. It never waits for the writer, and the writer never waits for it.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.execute_batch("PRAGMA query_only = 1; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192;")?;
    Ok(conn)
}

/// Opens a connection for checkpoints: it copies the log into the file, and does nothing else.
pub(super) fn open_checkpointer(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // The log may only restart once its contents are in the file, on the disk.
    conn.execute_batch("PRAGMA synchronous = FULL;")?;
    Ok(conn)
}

/// Converts the error of a failed statement into the store's error, by what the caller can do about it.
pub(super) fn store_error(path: &Path, error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode as Code;
    let file = path.display();
    if is_unconfirmed(error) {
        return StoreError::Unknown(format!("{file}: {}; check the disk and the kernel's log", reason(error)));
    }
    match error.sqlite_error_code() {
        Some(Code::DiskFull) => {
            StoreError::Busy(format!("the disk of {file} is full: free some space, and work resumes by itself"))
        }
        Some(Code::SystemIoFailure) if is_full(path, error) => StoreError::Busy(format!(
            "{file} or its log has reached the largest size that this process may give a file, {} bytes (`ulimit -f`, \
             `LimitFSIZE=` of systemd); raise it with `prlimit --fsize`, and work resumes by itself",
            file_bytes_max().unwrap_or_default()
        )),
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            StoreError::Busy(format!("another program has locked {file}: let it finish, and work resumes by itself"))
        }
        Some(Code::OutOfMemory) => StoreError::Busy(format!("the machine ran out of memory while writing {file}")),
        _ => StoreError::Broken(format!("{file}: {}", reason(error))),
    }
}

/// Returns true if the disk was given a commit and did not confirm it: after a power cut the commit may be there or not.
pub(super) fn is_unconfirmed(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code.is_some_and(|code| [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&code))
}

/// Returns true if a write failed because the disk is full, or because the file would pass the largest size that this process
/// may give a file. SQLite does not distinguish the latter from a broken disk.
pub(super) fn is_full(path: &Path, error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as Code;
    let is_near_max = || {
        let real = real_path(path);
        let bytes = |suffix: &str| std::fs::metadata(beside(&real, suffix)).map_or(0, |file| file.len());
        let max = file_bytes_max().unwrap_or(u64::MAX);
        ["", "-wal", "-shm"].iter().any(|suffix| bytes(suffix).saturating_add(WRITE_BYTES_MAX) > max)
    };
    match error.sqlite_error_code() {
        Some(Code::DiskFull) => true,
        Some(Code::SystemIoFailure) => is_near_max(),
        _ => false,
    }
}

/// Returns the largest size in bytes that this process may give a file, if there is a limit.
pub(super) fn file_bytes_max() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// Sets up the writer's connection and applies the migrations after `version`.
fn set_up(conn: &mut Connection, version: usize) -> rusqlite::Result<()> {
    conn.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA temp_store = MEMORY;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    if version < MIGRATIONS.len() {
        let transaction = conn.transaction()?;
        for script in &MIGRATIONS[version..] {
            transaction.execute_batch(script)?;
        }
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Describes why a file can't be used, and what to do.
pub(super) fn reason(error: &rusqlite::Error) -> String {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::NotADatabase) => "it is not a SQLite database; move it away or name another file".to_owned(),
        Some(Code::DatabaseCorrupt) => {
            format!("the database is damaged: {error}; restore it from a backup or move it away")
        }
        Some(Code::ReadOnly | Code::PermissionDenied | Code::CannotOpen) => {
            format!("could not write it: {error}; check the permissions of the file and its folder")
        }
        _ => error.to_string(),
    }
}
