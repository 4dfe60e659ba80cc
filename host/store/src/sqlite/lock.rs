//! The locks of a database file: one host at a time uses it, under whichever name it opens the file.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::fstatfs;

use super::file_header::unusable;
use crate::store::OpenError;

/// The permissions of files that are created: jobs are for the host's user only. SQLite gives the log and its index those of the
/// database, and files that exist keep theirs.
const MODE: u32 = 0o600;
/// Magic numbers of the file systems that implement `flock` as a lock on the file's bytes, which would keep out SQLite's own
/// locks: NFS, and SMB in its two kinds.
const FLOCK_LOCKS_BYTES: [u32; 3] = [0x6969, 0xFF53_4D42, 0xFE53_4D42];

/// The locks of one database file. They last until this is dropped, or the process ends in any way.
#[derive(Debug)]
pub(super) struct FileLock {
    /// The database file itself, whose lock covers all its names. It stays open for as long as SQLite has the file open:
    /// closing any descriptor of a file ends all locks that SQLite has on it for this process (`fcntl(2)`).
    database: File,
    /// The lock file beside the database, under its name. Hosts of version 0.1 check this lock alone, and it is the only one
    /// where `flock` can't be used.
    _named: File,
}

impl FileLock {
    /// Locks the file, and creates an empty one if there is none.
    ///
    /// # Errors
    /// If another host uses the file, it has several hard links, or it is not a regular file that can be written.
    pub(super) fn acquire(path: &Path) -> Result<FileLock, OpenError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(unusable(path, format!("the folder {} does not exist; create it first", folder.display())));
        }
        let real = real_path(path);
        let found = std::fs::metadata(&real).ok();
        match &found {
            Some(found) if found.is_dir() => return Err(unusable(path, "it is a folder; name a file in it")),
            // Opening a pipe would wait for its other end.
            Some(found) if !found.is_file() => {
                return Err(unusable(path, "it is not a regular file; name one that is"));
            }
            _ => {}
        }
        let named = lock_named(path, &real)?;
        // SQLite deletes the log of an empty file.
        let (log, length) = (beside(&real, "-wal"), log_bytes(&real));
        if length > 0 && found.is_none_or(|found| found.len() == 0) {
            return Err(unusable(
                path,
                format!(
                    "it is empty or missing, and its log {} still contains {length} bytes, which may be jobs: restore the file \
                     that the log belongs to, or move the log away to start with an empty store",
                    log.display()
                ),
            ));
        }
        let open = File::options().read(true).write(true).create(true).truncate(false).mode(MODE).open(&real);
        let unwritable = |error| {
            unusable(path, format!("could not write it: {error}; check the permissions of the file and its folder"))
        };
        let database = open.map_err(unwritable)?;
        let locked = if flock_is_independent(&database) { database.try_lock() } else { Ok(()) };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // This process itself may be the one that uses the file; closing the descriptor would end SQLite's locks.
                std::mem::forget(database);
                return Err(OpenError::StopOtherHost { file: path.display().to_string() });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(path, format!("could not lock it: {error}"))),
        }
        let names = database.metadata().map_err(unwritable)?.nlink();
        if names > 1 {
            return Err(unusable(
                path,
                format!(
                    "it has {names} names (hard links), each with a log of its own: what is written under one name is not found \
                     under another; remove the other names (`find FOLDER -samefile {}` finds them), or make a copy and open that",
                    path.display()
                ),
            ));
        }
        Ok(FileLock { database, _named: named })
    }

    /// Returns the locked file.
    pub(super) fn database(&self) -> &File {
        &self.database
    }
}

/// Returns the path where the file is, or will be created, with every link resolved.
pub(super) fn real_path(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(named).unwrap_or_else(|| path.to_owned())
}

/// Returns the path of a file that belongs to the database: its path with `suffix` appended.
pub(super) fn beside(real: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(real);
    name.push(suffix);
    name.into()
}

/// Returns the size of the log in bytes: what it contains may not be in the file yet.
pub(super) fn log_bytes(real: &Path) -> u64 {
    std::fs::metadata(beside(real, "-wal")).map_or(0, |log| log.len())
}

fn lock_named(path: &Path, real: &Path) -> Result<File, OpenError> {
    let name = beside(real, ".lock");
    let failed = |verb: &str, error: &std::io::Error| {
        unusable(path, format!("could not {verb} its lock file {}: {error}", name.display()))
    };
    let lock = File::options().create(true).truncate(false).write(true).mode(MODE).open(&name);
    let lock = lock.map_err(|error| failed("write", &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::StopOtherHost { file: path.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(failed("lock", &error)),
    }
}

/// Returns true if `flock` and SQLite's locks on the same file do not affect each other, as on Linux's own file systems.
/// Returns false if the kind of file system is not known.
fn flock_is_independent(file: &File) -> bool {
    let kind = fstatfs(file).map(|system| system.f_type as u32);
    cfg!(target_os = "linux") && kind.is_ok_and(|kind| !FLOCK_LOCKS_BYTES.contains(&kind))
}
