//! The database file: its lock, its connections, its version.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use crate::store::{OpenError, StoreError};

/// One script per version, in order; a file's `user_version` says how many of them it has seen.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_jobs.sql"),
    include_str!("../../migrations/sqlite/0002_ready.sql"),
    include_str!("../../migrations/sqlite/0003_kv.sql"),
];

/// Marks the file as a store of Wharf: "Whrf".
const APPLICATION_ID: i64 = 0x5768_7266;

/// How long a statement waits for another program that has the file locked, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The writer's page cache, 16 MiB. Jobs are served in about the order that they lie in, so what it works on is small
/// however many wait; and SQLite looks through the whole cache at each commit after two pages of an index changed places.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// More statements than this store has: none is ever prepared twice.
const STATEMENTS_KEPT: usize = 128;

/// Where the file is, or will be, with every link followed.
fn real_path(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(named).unwrap_or_else(|| path.to_owned())
}

/// A database file that this process alone writes to.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    /// The lock ends with this handle, also when the process is killed.
    _lock: File,
}

impl DatabaseFile {
    pub(super) fn lock(path: &Path) -> Result<DatabaseFile, OpenError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
            return Err(mend(path, format!("there is no folder {}; make it first", folder.display())));
        }
        if path.is_dir() {
            return Err(mend(path, "it is a folder; name a file in it".to_owned()));
        }
        // The lock belongs to the file and not to a name of it: a link to it must find the same one.
        let mut lock_path = OsString::from(real_path(path));
        lock_path.push(".lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock
            .map_err(|error| mend(path, format!("its lock file {} cannot be written: {error}", lock_path.display())))?;
        match lock.try_lock() {
            Ok(()) => Ok(DatabaseFile { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::StopOtherHost { file: path.display().to_string() }),
            Err(TryLockError::Error(error)) => {
                Err(mend(path, format!("its lock file {} cannot be locked: {error}", lock_path.display())))
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The one connection that writes, with the schema of this version.
    pub(super) fn writer(&self) -> Result<Connection, OpenError> {
        let open = || -> rusqlite::Result<(Connection, i64, i64)> {
            let conn = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
            let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            let application: i64 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
            Ok((conn, version, application))
        };
        let broken = |error: rusqlite::Error| mend(&self.path, reason(&error));
        let (mut conn, version, application) = open().map_err(broken)?;
        let known = MIGRATIONS.len() as i64;
        let tables =
            |conn: &Connection| conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
        if application != APPLICATION_ID && (application != 0 || version != 0 || tables(&conn).map_err(broken)? > 0) {
            return Err(mend(
                &self.path,
                "it is a database of another program; give the host a file of its own".to_owned(),
            ));
        }
        if version > known {
            return Err(OpenError::TakeNewerHost { file: self.path.display().to_string(), found: version, known });
        }
        prepare(&mut conn, version as usize).map_err(broken)?;
        Ok(conn)
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

fn mend(path: &Path, reason: String) -> OpenError {
    OpenError::MendFile { file: path.display().to_string(), reason }
}

fn reason(error: &rusqlite::Error) -> String {
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
