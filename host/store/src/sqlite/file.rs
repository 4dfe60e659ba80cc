//! The database file: its connections and its version, under its lock.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};
use rustix::process::{Resource, getrlimit};

use super::file_header::{APPLICATION_ID, Mark, mend};
use super::lock::{Lock, log_length, real_path};
use crate::store::{OpenError, StoreError};

/// One script per version, in order; a file's `user_version` says how many of them it has seen.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_jobs.sql"),
    include_str!("../../migrations/sqlite/0002_ready.sql"),
    include_str!("../../migrations/sqlite/0003_kv.sql"),
    include_str!("../../migrations/sqlite/0004_marks.sql"),
];

/// How long a statement waits for another program that has the file locked, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The writer's page cache, 16 MiB. Jobs are served in about the order that they lie in, so what it works on is small
/// however many wait; and SQLite looks through the whole cache at each commit after two pages of an index changed places.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// More statements than this store has: none is ever prepared twice.
const STATEMENTS_KEPT: usize = 128;
/// More than SQLite writes at once.
const WRITE_BYTES_MAX: u64 = 64 * 1024;

/// A database file that this process alone writes to.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    /// As people call it.
    path: PathBuf,
    /// With every link followed: the log lies beside this one.
    real: PathBuf,
    lock: Lock,
}

impl DatabaseFile {
    pub(super) fn lock(path: &Path) -> Result<DatabaseFile, OpenError> {
        let lock = Lock::take(path)?;
        Ok(DatabaseFile { path: path.to_owned(), real: real_path(path), lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn real(&self) -> &Path {
        &self.real
    }

    /// The file that is locked, which is the one that is open.
    pub(super) fn locked(&self) -> io::Result<Metadata> {
        self.lock.database().metadata()
    }

    /// The one connection that writes, with the schema of this version.
    ///
    /// # Errors
    /// When the file is not this version's to have, which leaves it as it was, or it cannot be used.
    pub(super) fn writer(&self) -> Result<Connection, OpenError> {
        let known = MIGRATIONS.len() as i64;
        let broken = |error: rusqlite::Error| mend(&self.path, reason(&error));
        self.mark().map_err(broken)?.judge(&self.path, known)?;
        let mut conn = connect(&self.real, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(broken)?;
        // Until it is known to be this host's, the log stays as it is when the connection ends.
        let keep = |conn: &Connection, keep| conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep);
        keep(&conn, true).map_err(broken)?;
        let mark = Mark::of_database(&conn).map_err(broken)?;
        mark.judge(&self.path, known)?;
        keep(&conn, false).map_err(broken)?;
        prepare(&mut conn, mark.version as usize).map_err(broken)?;
        Ok(conn)
    }

    /// What the file says that it is, without a trace of having asked.
    fn mark(&self) -> rusqlite::Result<Mark> {
        let unreadable = |code, text: String| rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(text));
        let mark = Mark::of_file(self.lock.database())
            .map_err(|error| unreadable(ffi::SQLITE_IOERR_READ, format!("it cannot be read: {error}")))?
            .ok_or_else(|| unreadable(ffi::SQLITE_NOTADB, String::new()))?;
        if mark.is_wharfs() || log_length(&self.real) == 0 {
            return Ok(mark);
        }
        // The log may say what the file does not say yet. SQLite shares its index of the log in a file beside them, unless the
        // connection has the database for itself.
        let conn = connect(&self.real, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
        Mark::of_database(&conn)
    }
}

fn connect(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection belongs to one thread at a time: SQLite need not lock it as well.
    let conn = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Without this, a statement that could use a partial index is planned anew for every value that it is given.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(conn)
}

/// A connection that only reads, and never waits for the writer nor makes it wait.
pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.execute_batch("PRAGMA query_only = 1; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192;")?;
    Ok(conn)
}

/// A connection that copies the log back into the file, and nothing else.
pub(super) fn copier(path: &Path) -> rusqlite::Result<Connection> {
    let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // The log may only begin anew once the file has what was in it, on the disk.
    conn.execute_batch("PRAGMA synchronous = FULL;")?;
    Ok(conn)
}

/// What a failed statement means to whoever asked for it.
pub(super) fn failure(path: &Path, error: &rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode as Code;
    let file = path.display();
    if is_unconfirmed(error) {
        return StoreError::Unknown(format!("{file}: {}; look at the disk, and at the kernel's log", reason(error)));
    }
    match error.sqlite_error_code() {
        Some(Code::DiskFull) => {
            StoreError::Busy(format!("there is no room for {file}: free some, and work goes on by itself"))
        }
        Some(Code::SystemIoFailure) if is_full(path, error) => StoreError::Busy(format!(
            "there is no room for {file}: it or its log has the largest size that this process may give a file, {} bytes \
             (`ulimit -f`, `LimitFSIZE=` of systemd); raise that with `prlimit --fsize`, and work goes on by itself",
            largest_file().unwrap_or_default()
        )),
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => {
            StoreError::Busy(format!("another program has {file} locked: let it finish, and work goes on by itself"))
        }
        Some(Code::OutOfMemory) => StoreError::Busy(format!("the machine is out of memory while writing {file}")),
        _ => StoreError::Broken(format!("{file}: {}", reason(error))),
    }
}

/// Whether the disk was given a commit and did not confirm it: after a power cut it may be found there, or not.
pub(super) fn is_unconfirmed(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code.is_some_and(|code| [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC].contains(&code))
}

/// Whether there was no room for a write: on the disk, or below the largest size that this process may give a file. SQLite does
/// not tell the second from a broken disk.
pub(super) fn is_full(path: &Path, error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as Code;
    let near_the_largest = || {
        let named = |end: &str| {
            let mut name = OsString::from(real_path(path));
            name.push(end);
            std::fs::metadata(name).map_or(0, |file| file.len())
        };
        let largest = largest_file().unwrap_or(u64::MAX);
        ["", "-wal", "-shm"].iter().any(|end| named(end).saturating_add(WRITE_BYTES_MAX) > largest)
    };
    match error.sqlite_error_code() {
        Some(Code::DiskFull) => true,
        Some(Code::SystemIoFailure) => near_the_largest(),
        _ => false,
    }
}

/// The size past which this process may write no file, if there is one.
pub(super) fn largest_file() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

fn prepare(conn: &mut Connection, version: usize) -> rusqlite::Result<()> {
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

/// Why a file cannot be used, and what to do.
pub(super) fn reason(error: &rusqlite::Error) -> String {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(Code::NotADatabase) => "it is not a SQLite database; move it away or name another file".to_owned(),
        Some(Code::DatabaseCorrupt) => {
            format!("the database is damaged ({error}); restore it from a backup or move it away")
        }
        Some(Code::ReadOnly | Code::PermissionDenied | Code::CannotOpen) => {
            format!("it cannot be written ({error}); check the rights of the file and its folder")
        }
        _ => error.to_string(),
    }
}
