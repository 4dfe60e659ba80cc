//! Checkpoints: the log is copied into the file, so that it can restart at its beginning.
//!
//! A thread of its own copies most of it while the writer goes on. What the writer has added in the meantime is little, and the
//! writer copies that itself between two transactions: only a log that is copied to its end can restart. Checkpoints make
//! nothing durable: a commit is in the log, on the disk, before it is acknowledged.

use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME, ErrorCode};
use tracing::warn;

use super::file::file_bytes_max;
use super::file_watch::FileWatch;
use crate::store::PinnedLog;

/// The log is copied after it has grown by this many pages (64 MiB). The longer it waits, the more often a page was rewritten
/// in the meantime and is copied only once.
const CHECKPOINT_PAGES: u32 = 16_000;
/// Pages that may be left to the writer (4 MiB): it copies them in a moment.
const REST_PAGES: u32 = 1_000;
/// Interval at which the thread copies a log to which the writer adds more than `REST_PAGES` each time.
const PASSES: usize = 4;
/// If copying is slower than writing, the writer waits for it once this many times `CHECKPOINT_PAGES` were added since the last
/// copy (256 MiB), so that the log is bounded.
const LOG_TIMES_MAX: u32 = 4;
/// A pinned log is reported from this length on (128 MiB).
const PINNED_PAGES_REPORTED: u32 = 2 * CHECKPOINT_PAGES;
/// Interval at which the thread checks the store's files, and tries again to copy a pinned log.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a page in the log.
const FRAME_BYTES: u64 = 4096 + 24;

/// Returns by how many pages the log grows before it is copied. If this process may not write large files, the log stays well
/// below that limit.
fn checkpoint_interval(file_bytes_max: Option<u64>) -> u32 {
    let pages = file_bytes_max.map_or(u64::MAX, |bytes| bytes / FRAME_BYTES);
    u32::try_from(pages / u64::from(2 * LOG_TIMES_MAX)).unwrap_or(u32::MAX).clamp(1, CHECKPOINT_PAGES)
}

/// The writer's handle to the checkpoint thread. Dropping it waits until a copy in progress has finished.
pub(super) struct Checkpoints {
    watch: Arc<FileWatch>,
    /// The log is copied each time that it has grown by this many pages.
    interval_pages: u32,
    /// The log's length in pages at the last copy; zero after it has restarted.
    copied_at_pages: u32,
    in_progress: bool,
    /// True if the last copy ended at pages that a reader's snapshot needs. The thread notices when it can continue.
    was_pinned: bool,
    requests: Option<SyncSender<()>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread. `writer` reports the log's length at each commit; `checkpointer` is a second connection to the same
    /// file.
    pub(super) fn start(
        watch: &Arc<FileWatch>,
        writer: &mut Connection,
        checkpointer: Connection,
    ) -> rusqlite::Result<Checkpoints> {
        let counted = watch.clone();
        // This replaces SQLite's own checkpoints, which would stop the writer.
        writer.wal_hook(Some(move |_: &mut Wal, pages: c_int| {
            counted.log_pages.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))?;
        let (requests, requested) = mpsc::sync_channel(1);
        let (report_done, done) = mpsc::sync_channel(1);
        let watched = watch.clone();
        let copy_on_request = move || {
            loop {
                match requested.recv_timeout(CHECK_INTERVAL) {
                    Ok(()) => {
                        copy_most(&watched, &checkpointer);
                        if report_done.send(()).is_err() {
                            return;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => check(&watched, &checkpointer),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        // If no thread can be started, nothing receives the requests, and the writer copies the log itself.
        let thread = thread::Builder::new().name("store-copier".to_owned()).spawn(copy_on_request);
        let thread = thread.inspect_err(|error| warn!("could not start a thread for checkpoints: {error}")).ok();
        Ok(Checkpoints {
            watch: watch.clone(),
            interval_pages: checkpoint_interval(file_bytes_max()),
            copied_at_pages: 0,
            in_progress: false,
            was_pinned: false,
            requests: Some(requests),
            done,
            thread,
        })
    }

    /// Keeps the log short. The writer calls this after each transaction, with its connection.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        let log = self.watch.log_pages.load(Ordering::Relaxed);
        if self.in_progress {
            if log.saturating_sub(self.copied_at_pages) >= LOG_TIMES_MAX * self.interval_pages {
                // An error means that the thread has ended: there is nothing to wait for.
                _ = self.done.recv();
            } else if self.done.try_recv() == Err(TryRecvError::Empty) {
                return;
            }
            self.finish(writer, log);
            return;
        }
        // The log has restarted since, which takes a transaction during which no reader needs the old pages.
        if log < self.copied_at_pages {
            self.copied_at_pages = 0;
        }
        let is_unpinned = self.was_pinned && !self.watch.log_is_pinned.load(Ordering::Relaxed);
        if is_unpinned || log - self.copied_at_pages >= self.interval_pages {
            self.was_pinned = false;
            self.in_progress = true;
            if self.requests.as_ref().is_none_or(|requests| requests.try_send(()).is_err()) {
                self.finish(writer, log);
            }
        }
    }

    /// Copies the log after a write failed for lack of space. The file may have space for the contents of the log, which then
    /// restarts and has space for what comes next.
    pub(super) fn free_space(&mut self, writer: &Connection) {
        if !self.in_progress {
            self.finish(writer, self.watch.log_pages.load(Ordering::Relaxed));
        }
    }

    fn finish(&mut self, writer: &Connection, log_pages: u32) {
        self.was_pinned = copy(&self.watch, writer).is_some_and(Copied::is_pinned);
        self.watch.log_is_pinned.store(self.was_pinned, Ordering::Relaxed);
        self.in_progress = false;
        self.copied_at_pages = log_pages;
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// Returns the log if it has grown long because a reader's snapshot pins it.
pub(super) fn pinned_log(watch: &FileWatch) -> Option<PinnedLog> {
    let pages = watch.log_pages.load(Ordering::Relaxed);
    let is_reported = watch.log_is_pinned.load(Ordering::Relaxed) && pages >= PINNED_PAGES_REPORTED;
    is_reported.then(|| PinnedLog { log: watch.log_path(), bytes: watch.log_bytes(pages) })
}

/// Checks the store's files, and if a pinned log can be copied now. The thread does this while it has no requests.
fn check(watch: &FileWatch, checkpointer: &Connection) {
    if watch.check_all(checkpointer).is_ok()
        && watch.log_is_pinned.load(Ordering::Relaxed)
        && copy(watch, checkpointer).is_some_and(|copied| !copied.is_pinned())
    {
        watch.log_is_pinned.store(false, Ordering::Relaxed);
    }
}

/// Copies the log until at most `REST_PAGES` of it are left, or `PASSES` times.
fn copy_most(watch: &FileWatch, checkpointer: &Connection) {
    for _ in 0..PASSES {
        let Some(Copied { copied, .. }) = copy(watch, checkpointer) else { return };
        if watch.log_pages.load(Ordering::Relaxed).saturating_sub(copied) <= REST_PAGES {
            return;
        }
    }
}

/// Progress of a copy, in pages.
#[derive(Clone, Copy)]
struct Copied {
    /// The log's length when the copy started.
    log: u32,
    copied: u32,
}

impl Copied {
    /// Returns true if there are pages left that a reader's snapshot needs.
    fn is_pinned(self) -> bool {
        self.copied < self.log
    }
}

/// Copies the log's contents into the file, up to the pages that a reader's snapshot needs. Returns `None` if that fails.
fn copy(watch: &FileWatch, conn: &Connection) -> Option<Copied> {
    // From a truncated log, SQLite would copy what is not there.
    watch.check_before_write(conn).ok()?;
    let pages = |number: c_int| u32::try_from(number).unwrap_or(0);
    match conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE) {
        Ok((log, copied)) => Some(Copied { log: pages(log), copied: pages(copied) }),
        // Another program copies it, such as a backup.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            Some(Copied { log: watch.log_pages.load(Ordering::Relaxed), copied: 0 })
        }
        // Nothing is lost: the pages stay in the log, and are copied when it has grown.
        Err(error) => {
            warn!("could not copy the log into the file: {}", watch.store_error(&error));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{DatabaseFile, open_checkpointer};
    use super::*;

    fn log_pages(watch: &FileWatch) -> u32 {
        watch.log_pages.load(Ordering::Relaxed)
    }

    #[test]
    fn a_long_log_is_copied_beside_the_writer_and_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let file = DatabaseFile::lock(&path).unwrap();
        let mut writer = Connection::open(&path).unwrap();
        let setup = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB);
            INSERT INTO t VALUES (1, NULL), (2, 0);";
        writer.execute_batch(setup).unwrap();
        let watch = Arc::new(FileWatch::new(&file, &writer).unwrap());
        let mut checkpoints = Checkpoints::start(&watch, &mut writer, open_checkpointer(&path).unwrap()).unwrap();
        let mut longest = 0;
        while longest < CHECKPOINT_PAGES {
            writer.execute("UPDATE t SET data = randomblob(4194304) WHERE id = 1", []).unwrap();
            longest = log_pages(&watch);
            checkpoints.after_commit(&writer);
        }
        assert!(checkpoints.in_progress, "no copy of {longest} pages was requested");
        let mut commits = 0;
        while log_pages(&watch) >= longest {
            writer.execute("UPDATE t SET data = data + 1 WHERE id = 2", []).unwrap();
            commits += 1;
            checkpoints.after_commit(&writer);
            assert!(log_pages(&watch) < LOG_TIMES_MAX * CHECKPOINT_PAGES, "the log is not bounded");
        }
        assert!(!checkpoints.in_progress && log_pages(&watch) < REST_PAGES);

        // All that was written in the meantime is there, in the file and in the log.
        let (sizes, counted): (i64, i64) = Connection::open(&path)
            .unwrap()
            .query_row("SELECT length(a.data), b.data FROM t a, t b WHERE a.id = 1 AND b.id = 2", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!((sizes, counted), (4_194_304, commits));
    }

    /// SQLite would read zeros from it, and write them over the file.
    #[test]
    fn nothing_is_copied_from_a_truncated_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let file = DatabaseFile::lock(&path).unwrap();
        let mut writer = Connection::open(&path).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (data BLOB);").unwrap();
        let watch = Arc::new(FileWatch::new(&file, &writer).unwrap());
        let _checkpoints = Checkpoints::start(&watch, &mut writer, open_checkpointer(&path).unwrap()).unwrap();
        writer.execute("INSERT INTO t VALUES (randomblob(100000))", []).unwrap();
        let before = std::fs::read(&path).unwrap();
        let log = std::fs::File::options().write(true).open(watch.log_path()).unwrap();
        let length = log.metadata().unwrap().len();
        log.set_len(0).unwrap();
        log.set_len(length - 1).unwrap();
        assert!(copy(&watch, &writer).is_none());
        assert!(watch.check().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
