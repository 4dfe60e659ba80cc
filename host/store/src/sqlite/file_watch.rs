//! Checks that the files that SQLite has open are still those that a restart would find.
//!
//! What is written to a file that was removed, replaced or moved away is gone with this process, and no write fails until then.
//! So the writer checks the log before each group of operations, and the file after each commit that waits for the disk and
//! before it acknowledges the commit: what is acknowledged was in the file at the path. All files are also checked once per
//! second. Once one is lost, nothing is read or written any more, even if the file returns: it is not known what happened to it
//! in the meantime.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME};
use tracing::warn;

use super::file::{self, DatabaseFile};
use super::file_header::unusable;
use super::lock::beside;
use crate::store::{OpenError, StoreError};

/// Bytes before the first page of the log.
const LOG_HEADER_BYTES: u64 = 32;
/// Bytes before each page of the log.
const FRAME_HEADER_BYTES: u64 = 24;

/// The files of one store, shared by its threads.
#[derive(Debug)]
pub(super) struct FileWatch {
    /// The path that the operator gave, for errors.
    name: String,
    /// The file by the path that it was opened by and, if that leads through a link, by its real path.
    database: Vec<WatchedFile>,
    log: WatchedFile,
    /// SQLite's index of the log (`-shm`), which other programs share with this one. Programs that don't share it do not
    /// notice each other.
    index: WatchedFile,
    /// The largest size of the file that was seen, in bytes.
    bytes_max: AtomicU64,
    /// SQLite's `data_version` when the file was opened: for the writer's connection it changes with what others commit.
    data_version: i64,
    page_bytes: u64,
    /// The log's length after the last commit, in pages.
    pub(super) log_pages: AtomicU32,
    /// True if another program reads an older snapshot, so that the log can't be copied into the file as a whole.
    pub(super) log_is_pinned: AtomicBool,
    lost: OnceLock<Loss>,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

#[derive(Debug)]
struct Loss {
    kind: LossKind,
    /// The error of every call from now on.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LossKind {
    /// The file is not at its path any more.
    File,
    /// The log or its index is not at its path any more: their contents can still be copied into the file.
    Log,
    /// The file or its log is shorter than what was written to it.
    Truncated,
}

impl WatchedFile {
    fn new(path: PathBuf) -> std::io::Result<WatchedFile> {
        let found = std::fs::metadata(&path)?;
        Ok(WatchedFile { path, device: found.dev(), inode: found.ino() })
    }

    /// Returns the metadata of the file if it is still at its path, `None` if that can't be read, and what happened otherwise.
    fn metadata(&self) -> Result<Option<Metadata>, &'static str> {
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => Ok(Some(found)),
            Ok(_) => Err("was replaced by another file"),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Err("is missing"),
            Err(_) => Ok(None),
        }
    }
}

impl FileWatch {
    /// Starts to watch a file that `writer` has open with its log.
    ///
    /// # Errors
    /// If the files can't be read, or the file was replaced while it was opened.
    pub(super) fn new(file: &DatabaseFile, writer: &Connection) -> Result<FileWatch, OpenError> {
        let failed = |error: &dyn std::fmt::Display| unusable(file.path(), format!("could not watch it: {error}"));
        let number = |sql: &str| writer.query_row(sql, [], |row| row.get(0)).map_err(|error| failed(&error));
        let watched = |path: PathBuf| WatchedFile::new(path).map_err(|error| failed(&error));
        let real = file.real();
        let (page_bytes, data_version): (i64, i64) = (number("PRAGMA page_size")?, number("PRAGMA data_version")?);
        let pages = log_pages(writer).map_err(|error| failed(&error))?;
        let given = std::path::absolute(file.path()).map_err(|error| failed(&error))?;
        let mut paths = vec![real.to_owned()];
        paths.extend((given != real).then_some(given));
        let watch = FileWatch {
            name: file.path().display().to_string(),
            database: paths.into_iter().map(watched).collect::<Result<_, _>>()?,
            log: watched(beside(real, "-wal"))?,
            index: watched(beside(real, "-shm"))?,
            bytes_max: AtomicU64::new(0),
            data_version,
            page_bytes: page_bytes.unsigned_abs(),
            log_pages: AtomicU32::new(pages),
            log_is_pinned: AtomicBool::new(false),
            lost: OnceLock::new(),
        };
        let opened = file.metadata().map_err(|error| failed(&error))?;
        if watch.database.iter().any(|file| (file.device, file.inode) != (opened.dev(), opened.ino())) {
            return Err(unusable(file.path(), "it was replaced while it was being opened; try again"));
        }
        Ok(watch)
    }

    /// Returns the result of the checks so far, without another one.
    ///
    /// # Errors
    /// If a file of the store is lost: from then on always the same `Broken`.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.lost.get().map_or(Ok(()), |lost| Err(StoreError::Broken(lost.text.clone())))
    }

    /// Checks, before a write, that the log has what was written to it: the write would hide that it does not.
    pub(super) fn check_before_write(&self, conn: &Connection) -> Result<(), StoreError> {
        if self.lost.get().is_none() {
            self.check_log(conn);
        }
        self.check()
    }

    /// Checks, after a commit that waited for the disk, that a restart would find it.
    pub(super) fn check_after_commit(&self, writer: &Connection) -> Result<(), StoreError> {
        self.check_file(Some(writer));
        self.check()
    }

    /// Checks that the file's path still refers to it.
    pub(super) fn check_path(&self) -> Result<(), StoreError> {
        self.check_file(None);
        self.check()
    }

    /// Checks all files, on another thread than the writer's.
    pub(super) fn check_all(&self, checkpointer: &Connection) -> Result<(), StoreError> {
        if self.lost.get().is_none() {
            self.check_file(None);
            self.check_log(checkpointer);
            if let Err(what) = self.index.metadata() {
                self.set_log_lost(checkpointer, &self.index, what);
            }
        }
        self.check()
    }

    /// Prepares the last connection to be closed. SQLite would copy the log into the file and delete the log; that is disabled
    /// for files that are not whole or not at their paths, since operators need them unchanged to repair them.
    pub(super) fn before_close(&self, conn: &Connection) {
        if self.lost.get().is_some_and(|lost| lost.kind != LossKind::Log) {
            _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        }
    }

    /// Returns the path of the log.
    pub(super) fn log_path(&self) -> String {
        self.log.path.display().to_string()
    }

    /// Returns the sizes of the file and of the log in bytes; zero for one that is not there.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
        (self.database.first().map_or(0, |file| bytes(&file.path)), bytes(&self.log.path))
    }

    /// Converts the error of a failed statement into the store's error.
    pub(super) fn store_error(&self, error: &rusqlite::Error) -> StoreError {
        file::store_error(Path::new(&self.name), error)
    }

    /// Returns the size in bytes of a log of `pages` pages.
    pub(super) fn log_bytes(&self, pages: u32) -> u64 {
        let header = if pages > 0 { LOG_HEADER_BYTES } else { 0 };
        header + u64::from(pages) * (FRAME_HEADER_BYTES + self.page_bytes)
    }

    fn check_file(&self, writer: Option<&Connection>) {
        for file in &self.database {
            match file.metadata() {
                Ok(Some(found)) => self.check_size(file, found.len(), writer),
                Ok(None) => {}
                Err(what) => _ = self.set_lost(LossKind::File, file, what, &rescue_steps()),
            }
        }
    }

    /// Checks that the file was not truncated. Only another program makes the file smaller: with VACUUM, which SQLite notices,
    /// or by truncating it.
    fn check_size(&self, file: &WatchedFile, bytes: u64, writer: Option<&Connection>) {
        let max = self.bytes_max.fetch_max(bytes, Ordering::Relaxed);
        if bytes >= max {
            return;
        }
        let is_truncated = bytes == 0
            || writer.is_some_and(|writer| {
                let data_version = writer.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
                !data_version.is_ok_and(|version| version != self.data_version)
            });
        if is_truncated {
            let what = format!("was truncated from {max} to {bytes} bytes");
            self.set_lost(LossKind::Truncated, file, &what, "Restore it from a backup, then start the host again");
        } else if writer.is_some() {
            self.bytes_max.store(bytes, Ordering::Relaxed);
        }
    }

    fn check_log(&self, conn: &Connection) {
        match self.log.metadata() {
            Ok(Some(found)) if found.len() < self.log_bytes(self.log_pages.load(Ordering::Relaxed)) => {
                self.check_log_size(conn);
            }
            Ok(_) => {}
            Err(what) => self.set_log_lost(conn, &self.log, what),
        }
    }

    /// Checks a log that is shorter than the writer left it: another program has copied it into the file, which SQLite notices,
    /// or has truncated it.
    fn check_log_size(&self, conn: &Connection) {
        let Ok(pages) = log_pages(conn) else { return };
        let Ok(Some(found)) = self.log.metadata() else { return };
        // The writer may continue in the meantime, and restart the log.
        let is_unchanged = log_pages(conn).is_ok_and(|now| now == pages);
        if is_unchanged && found.len() < self.log_bytes(pages) {
            let what = format!("was truncated from {} to {} bytes", self.log_bytes(pages), found.len());
            let steps = "What was acknowledged last may be missing: restore the file and its log from a backup, or continue with \
                         what the file has, and start the host again";
            self.set_lost(LossKind::Truncated, &self.log, &what, steps);
        }
    }

    /// Records that the log or its index is lost. The contents of a log without a path can still be copied into the file, where
    /// a restart finds them.
    fn set_log_lost(&self, conn: &Connection, file: &WatchedFile, what: &str) {
        // If the file is gone as well, there is nothing to copy the log into.
        if self.check_path().is_err() {
            return;
        }
        let steps = format!(
            "Its contents are being copied into the file: move away what is at {} by then, and start the host again",
            file.path.display()
        );
        if self.set_lost(LossKind::Log, file, what, &steps) {
            let copied = conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE);
            if !copied.is_ok_and(|(pages, copied)| pages == copied) {
                warn!(
                    "{}: not all of the lost log is in the file yet; stop the host with SIGTERM to try again",
                    self.name
                );
            }
        }
    }

    /// Records a loss, unless there was one before. Returns true if there was none.
    fn set_lost(&self, kind: LossKind, file: &WatchedFile, what: &str, steps: &str) -> bool {
        let FileWatch { name, .. } = self;
        let path = file.path.display();
        let text = format!(
            "{name}: {path} {what} while this host has it open; nothing more is written, since a restart would not find it. \
             {steps}"
        );
        self.lost.set(Loss { kind, text }).is_ok()
    }
}

fn rescue_steps() -> String {
    format!(
        "What was acknowledged is still in the files that this process has open: move the file and its log (-wal) back to their \
         paths, or copy both from /proc/{}/fd before you stop the host; then start it again",
        std::process::id()
    )
}

/// Returns the log's length in pages, as SQLite knows it.
fn log_pages(conn: &Connection) -> rusqlite::Result<u32> {
    // This checkpoints nothing, and returns the length all the same.
    conn.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| Ok(u32::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
}
