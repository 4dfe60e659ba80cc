//! The locks of a database file: one host at a time, by whatever name each of them calls it.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::fstatfs;

use super::file_header::mend;
use crate::store::OpenError;

/// The rights that SQLite gives a file which it makes, before the umask.
const MODE: u32 = 0o644;
/// File systems on which `flock` is carried out as a lock on the file's bytes, and would keep out SQLite's own: NFS, and SMB
/// in its two kinds.
const FLOCK_LOCKS_BYTES: [u32; 3] = [0x6969, 0xFF53_4D42, 0xFE53_4D42];

/// Held until it is dropped, or until the process ends in whatever way.
#[derive(Debug)]
pub(super) struct Lock {
    /// The file itself, and with it every name that it has. It stays open for as long as SQLite has the file open: to close any
    /// descriptor of a file ends all locks that SQLite holds on it for this process (`fcntl(2)`).
    database: File,
    /// Beside the file, under its name: all that hosts of version 0.1 look at, and all that there is where `flock` cannot be
    /// used.
    _named: File,
}

impl Lock {
    /// Locks the file, and makes an empty one where there is none.
    ///
    /// # Errors
    /// When another host has it, it has several hard links, or it is no file that can be written.
    pub(super) fn take(path: &Path) -> Result<Lock, OpenError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(mend(path, format!("there is no folder {}; make it first", folder.display())));
        }
        let real = real_path(path);
        let found = std::fs::metadata(&real).ok();
        match &found {
            Some(found) if found.is_dir() => return Err(mend(path, "it is a folder; name a file in it")),
            // To open one that is a pipe would wait for its other end.
            Some(found) if !found.is_file() => return Err(mend(path, "it is not a regular file; name one that is")),
            _ => {}
        }
        let named = lock_named(path, &real)?;
        // SQLite deletes the log of a file that is empty.
        let (log, length) = (beside(&real, "-wal"), log_length(&real));
        if length > 0 && found.is_none_or(|found| found.len() == 0) {
            return Err(mend(
                path,
                format!(
                    "it is empty or gone, and its log {} still holds {length} bytes, which may be jobs: put the file back that \
                     the log belongs to, or move the log away to begin with an empty store",
                    log.display()
                ),
            ));
        }
        let open = File::options().read(true).write(true).create(true).truncate(false).mode(MODE).open(&real);
        let cannot =
            |error| mend(path, format!("it cannot be written ({error}); check the rights of the file and its folder"));
        let database = open.map_err(cannot)?;
        let locked = if has_flock_apart(&database) { database.try_lock() } else { Ok(()) };
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // It may be this very process that has the file, and then to close this would end SQLite's locks.
                std::mem::forget(database);
                return Err(OpenError::StopOtherHost { file: path.display().to_string() });
            }
            Err(TryLockError::Error(error)) => return Err(mend(path, format!("it cannot be locked: {error}"))),
        }
        let names = database.metadata().map_err(cannot)?.nlink();
        if names > 1 {
            return Err(mend(
                path,
                format!(
                    "it has {names} names (hard links), each of which has a log of its own: what is written by one name is not \
                     found by another; remove the other names (`find FOLDER -samefile {}` finds them), or make a copy and open that",
                    path.display()
                ),
            ));
        }
        Ok(Lock { database, _named: named })
    }

    pub(super) fn database(&self) -> &File {
        &self.database
    }
}

/// Where the file is, or will be, with every link followed.
pub(super) fn real_path(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(named).unwrap_or_else(|| path.to_owned())
}

/// The name of a file that belongs to the database.
pub(super) fn beside(real: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(real);
    name.push(ending);
    name.into()
}

/// How much the log holds that may not be in the file yet.
pub(super) fn log_length(real: &Path) -> u64 {
    std::fs::metadata(beside(real, "-wal")).map_or(0, |log| log.len())
}

fn lock_named(path: &Path, real: &Path) -> Result<File, OpenError> {
    let name = beside(real, ".lock");
    let cannot = |what: &str, error: &std::io::Error| {
        mend(path, format!("its lock file {} cannot be {what}: {error}", name.display()))
    };
    let lock = File::options().create(true).truncate(false).write(true).open(&name);
    let lock = lock.map_err(|error| cannot("written", &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::StopOtherHost { file: path.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(cannot("locked", &error)),
    }
}

/// Whether `flock` and the locks of SQLite on the same file know nothing of each other: so it is with Linux' own file systems.
/// Where the kind of file system cannot be told it is left alone.
fn has_flock_apart(file: &File) -> bool {
    let kind = fstatfs(file).map(|system| system.f_type as u32);
    cfg!(target_os = "linux") && kind.is_ok_and(|kind| !FLOCK_LOCKS_BYTES.contains(&kind))
}
