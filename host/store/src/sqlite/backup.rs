//! Backups of a database file: a copy of one moment, and back.
//!
//! A backup reads one snapshot of the file, in small steps. Nobody waits for it: the host writes what comes meanwhile to the log,
//! which cannot be copied into the file before the backup ends, and so grows by what is written in that time. SQLite's own online
//! backup without a snapshot would begin again with each commit of a host, and so never end while one is busy.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::OFlags;

use super::check::contents;
use super::file::{self, DatabaseFile, connect, open_store};
use super::file_header::unusable;
use super::lock::{beside, log_bytes, real_path};
use crate::store::{BackupReport, MaintenanceError, StoreContents};

/// Pages that one step copies (1 MiB).
const STEP_PAGES: i32 = 256;
/// The end of the name of a file that is not whole. No other program makes such a name.
const SUFFIX: &str = ".wharf-unfinished";
/// The permissions of a backup: jobs are for their user only.
const MODE: u32 = 0o600;

/// Copies a store's file into a new one.
///
/// # Errors
/// If the file is not a store or cannot be read, or the new file exists or cannot be written.
pub(crate) fn backup_file(
    store: &Path,
    to: &Path,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<BackupReport, MaintenanceError> {
    let started = Instant::now();
    let failed = |doing, error: &dyn std::fmt::Display| failed(doing, to, error);
    let source = open_store(store)?;
    if to.exists() {
        return Err(failed("write", &"it exists; name a new file"));
    }
    // The name of a backup appears when it is whole.
    let (unfinished, partial) = Unfinished::begin(to, store)?;
    let (real, read) = (real_path(store), |error: rusqlite::Error| unusable(store, file::reason(&error)));
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(read)?;
    let log_before = log_bytes(&real);

    let mut target = connect(&partial, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| failed("write", &error))?;
    copy(&source, &mut target, on_progress).map_err(|error| failed("write", &error))?;
    drop(source);
    // One file, without a log beside it.
    let held = target.pragma_update(None, "journal_mode", "DELETE").and_then(|()| contents(&target));
    let held = held.map_err(|error| failed("write", &error))?;
    target.close().map_err(|(_, error)| failed("write", &error))?;
    let bytes = unfinished.finish(to).map_err(|error| failed("write", &error))?;
    sync_folder(to).map_err(|error| failed("write", &error))?;
    let log_growth = log_bytes(&real).saturating_sub(log_before);
    Ok(BackupReport { bytes, contents: held, log_growth, took: started.elapsed() })
}

/// Copies a backup into a store's file that is empty or missing, which no host may use.
///
/// # Errors
/// If a host uses the file, it is not empty, or the backup is not a store or is damaged.
pub(crate) fn restore_file(store: &Path, from: &Path) -> Result<StoreContents, MaintenanceError> {
    let source = open_store(from)?;
    let is_there = store.exists();
    let file = DatabaseFile::lock(store)?;
    let found = file.metadata().map_err(|error| failed("read", store, &error))?;
    if found.len() > 0 {
        return Err(failed(
            "restore",
            store,
            &"it holds a store already; move it away first, with the files beside it",
        ));
    }
    let made = (!is_there).then(|| Made(file.real().to_owned()));
    // A store that is not whole never has the name: whatever ends this, the next try finds an empty file or none.
    let (unfinished, partial) = Unfinished::begin(file.real(), from)?;
    let write = |error: rusqlite::Error| failed("restore", store, &error);
    let read = |error: rusqlite::Error| unusable(from, file::reason(&error));
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(read)?;
    let mut target = connect(&partial, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(write)?;
    copy(&source, &mut target, &mut |_, _| {}).map_err(write)?;
    let state: String = target.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(write)?;
    if state != "ok" {
        let reason =
            format!("the backup {} is damaged: {state}; nothing was restored, use another one", from.display());
        return Err(failed("restore", store, &reason));
    }
    let held = contents(&target).map_err(write)?;
    // As hosts leave it.
    target.pragma_update(None, "journal_mode", "WAL").map_err(write)?;
    target.close().map_err(|(_, error)| write(error))?;
    unfinished.finish(file.real()).map_err(|error| failed("restore", store, &error))?;
    // The store has its name: whatever comes now, it stays.
    if let Some(made) = made {
        std::mem::forget(made);
    }
    let unsure = |error| {
        failed("restore", store, &format!("the store is restored, but the disk may not have its name yet: {error}"))
    };
    sync_folder(file.real()).map_err(|error: std::io::Error| unsure(error))?;
    Ok(held)
}

fn copy(source: &Connection, target: &mut Connection, on_progress: &mut dyn FnMut(u64, u64)) -> rusqlite::Result<()> {
    let page_bytes: u64 = source.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?.unsigned_abs();
    let backup = Backup::new(source, target)?;
    loop {
        let step = backup.step(STEP_PAGES)?;
        let progress = backup.progress();
        let bytes = |pages: i32| u64::try_from(pages).unwrap_or(0) * page_bytes;
        on_progress(bytes(progress.pagecount - progress.remaining), bytes(progress.pagecount));
        match step {
            StepResult::Done => return Ok(()),
            // Nobody else writes to the new file, and the source is a snapshot: a lock is one of a moment.
            StepResult::Busy | StepResult::Locked => std::thread::yield_now(),
            _ => {}
        }
    }
}

/// Has the disk know the name of a file.
fn sync_folder(name: &Path) -> std::io::Result<()> {
    let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// A file on its way to its name, which is removed unless it is finished. One that a process left which was killed is written anew.
struct Unfinished {
    path: PathBuf,
    /// Locked, so that two processes do not write to it at once.
    file: File,
    is_finished: bool,
}

impl Unfinished {
    /// Begins a file that is to have a name, for a copy of `source`. Returns its path, too.
    fn begin(name: &Path, source: &Path) -> Result<(Unfinished, PathBuf), MaintenanceError> {
        let path = beside(name, SUFFIX);
        let failed = |error: &dyn std::fmt::Display| failed("write", &path, error);
        let busy = "another process is writing it; wait for it, or name another file";
        // A link would lead to a file that is somebody else's.
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(MODE).custom_flags(flags);
        let file = options.open(&path).map_err(|error| failed(&error))?;
        file.try_lock().map_err(|_| failed(&busy))?;
        let locked = file.metadata().map_err(|error| failed(&error))?;
        let is_locked = |found: Metadata| (found.dev(), found.ino()) == (locked.dev(), locked.ino());
        if fs::metadata(source).is_ok_and(is_locked) {
            return Err(failed(&format!("it is what is copied; move it to a name that does not end in `{SUFFIX}`")));
        }
        // Whoever had the lock until now may have given the file its name, or removed it.
        if !fs::symlink_metadata(&path).is_ok_and(is_locked) {
            return Err(failed(&busy));
        }
        file.set_len(0).map_err(|error| failed(&error))?;
        Ok((Unfinished { path: path.clone(), file, is_finished: false }, path))
    }

    /// Gives the file its name, and returns its size in bytes.
    fn finish(mut self, name: &Path) -> std::io::Result<u64> {
        self.file.sync_all()?;
        let bytes = self.file.metadata()?.len();
        fs::rename(&self.path, name)?;
        self.is_finished = true;
        Ok(bytes)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_finished {
            // Another process may have begun a file of this name since.
            return;
        }
        for suffix in ["", "-journal", "-wal", "-shm"] {
            _ = fs::remove_file(beside(&self.path, suffix));
        }
    }
}

/// An empty file that is removed unless it is filled.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.0);
    }
}

fn failed(doing: &'static str, file: &Path, error: &dyn std::fmt::Display) -> MaintenanceError {
    MaintenanceError::File { doing, file: file.display().to_string(), reason: error.to_string() }
}
