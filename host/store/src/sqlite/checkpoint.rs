//! Checkpoints: what has gathered in the log goes back into the file, so that the log can begin anew.
//!
//! Most of it is copied by a thread of its own, while the writer goes on. What the writer has added meanwhile is little,
//! and it copies that itself between two transactions: only a log that is copied to its end can begin anew.
//! None of this makes anything durable: a commit is on the disk, in the log, before it is answered.

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

use super::file::largest_file;
use super::file_watch::Watch;
use crate::store::PinnedLog;

/// The log is copied back when it has grown by this many pages (64 MiB). The longer it waits, the more often a page was
/// rewritten in the meantime and is copied but once.
const CHECKPOINT_PAGES: u32 = 16_000;
/// So much may be left to the writer (4 MiB): a moment's work.
const REST_PAGES: u32 = 1_000;
/// How often the thread goes over a log to which the writer keeps adding more than that.
const PASSES: usize = 4;
/// Where copying cannot keep up with writing, the writer waits for it once so many times as many pages were added since the last
/// copy (256 MiB), so that the log has an end.
const LOG_TIMES_MAX: u32 = 4;
/// A log that somebody holds up is told of from here on (128 MiB).
const HELD_PAGES_TOLD: u32 = 2 * CHECKPOINT_PAGES;
/// How often the thread looks at the store's files, and tries again to copy a log that somebody held up.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A page as it stands in the log.
const PAGE_BYTES: u64 = 4096 + 24;

/// How much may gather before it is copied. Where files of this process may not be large, the log stays well below that.
fn pages_between(largest_file: Option<u64>) -> u32 {
    let fit = largest_file.map_or(u64::MAX, |bytes| bytes / PAGE_BYTES);
    u32::try_from(fit / u64::from(2 * LOG_TIMES_MAX)).unwrap_or(u32::MAX).clamp(1, CHECKPOINT_PAGES)
}

/// The writer's side. Dropping it lets a copy that goes on finish, and waits for that.
pub(super) struct Checkpoints {
    watch: Arc<Watch>,
    /// The log is copied each time that it has grown by so many pages.
    every: u32,
    /// How long the log was when it was last copied; zero once it has begun anew.
    copied_at: u32,
    under_way: bool,
    /// The last copy came to what somebody reads around. The thread finds out when it can go on.
    was_held: bool,
    ask: Option<SyncSender<()>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// `writer` says how long the log is, at each commit; `copier` is a second connection to the same file.
    pub(super) fn start(
        watch: &Arc<Watch>,
        writer: &mut Connection,
        copier: Connection,
    ) -> rusqlite::Result<Checkpoints> {
        let counted = watch.clone();
        // Takes the place of SQLite's own checkpoints, which would stop the writer.
        writer.wal_hook(Some(move |_: &mut Wal, pages: c_int| {
            counted.pages.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))?;
        let (ask, asked) = mpsc::sync_channel(1);
        let (tell, done) = mpsc::sync_channel(1);
        let watched = watch.clone();
        let copy_when_asked = move || {
            loop {
                match asked.recv_timeout(LOOK_EVERY) {
                    Ok(()) => {
                        copy_most(&watched, &copier);
                        if tell.send(()).is_err() {
                            return;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => look(&watched, &copier),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        // Where no thread is to be had, nobody takes the wish, and the writer copies for itself.
        let thread = thread::Builder::new().name("store-copier".to_owned()).spawn(copy_when_asked);
        let thread = thread.inspect_err(|error| warn!("the store's log is copied by its writer: {error}")).ok();
        let (watch, every) = (watch.clone(), pages_between(largest_file()));
        Ok(Checkpoints { watch, every, copied_at: 0, under_way: false, was_held: false, ask: Some(ask), done, thread })
    }

    /// Keeps the log short. Called by the writer after each transaction, with its connection.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        let log = self.watch.pages.load(Ordering::Relaxed);
        if self.under_way {
            if log.saturating_sub(self.copied_at) >= LOG_TIMES_MAX * self.every {
                // An error means that the thread is gone: nothing to wait for.
                _ = self.done.recv();
            } else if self.done.try_recv() == Err(TryRecvError::Empty) {
                return;
            }
            self.finish(writer, log);
            return;
        }
        // It began anew since, which takes a transaction that nobody reads around.
        if log < self.copied_at {
            self.copied_at = 0;
        }
        let is_free_again = self.was_held && !self.watch.held.load(Ordering::Relaxed);
        if is_free_again || log - self.copied_at >= self.every {
            self.was_held = false;
            self.under_way = true;
            if self.ask.as_ref().is_none_or(|ask| ask.try_send(()).is_err()) {
                self.finish(writer, log);
            }
        }
    }

    /// A write found no room. What the log holds may find some in the file: then the log begins anew, and has room for what comes.
    pub(super) fn make_room(&mut self, writer: &Connection) {
        if !self.under_way {
            self.finish(writer, self.watch.pages.load(Ordering::Relaxed));
        }
    }

    fn finish(&mut self, writer: &Connection, log: u32) {
        self.was_held = copy(&self.watch, writer).is_some_and(Copied::is_held);
        self.watch.held.store(self.was_held, Ordering::Relaxed);
        self.under_way = false;
        self.copied_at = log;
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        drop(self.ask.take());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// A log that has grown long, since somebody reads the file as it was before.
pub(super) fn pinned_log(watch: &Watch) -> Option<PinnedLog> {
    let pages = watch.pages.load(Ordering::Relaxed);
    let is_told = watch.held.load(Ordering::Relaxed) && pages >= HELD_PAGES_TOLD;
    is_told.then(|| PinnedLog { log: watch.log_name(), bytes: watch.log_bytes(pages) })
}

/// What the thread does when nobody asks it: whether the files are there, and whether a log that was held up is free.
fn look(watch: &Watch, copier: &Connection) {
    if watch.look(copier).is_ok()
        && watch.held.load(Ordering::Relaxed)
        && copy(watch, copier).is_some_and(|copied| !copied.is_held())
    {
        watch.held.store(false, Ordering::Relaxed);
    }
}

/// Copies the log until little is left of it.
fn copy_most(watch: &Watch, copier: &Connection) {
    for _ in 0..PASSES {
        let Some(Copied { copied, .. }) = copy(watch, copier) else { return };
        if watch.pages.load(Ordering::Relaxed).saturating_sub(copied) <= REST_PAGES {
            return;
        }
    }
}

/// How far a copy came.
#[derive(Clone, Copy)]
struct Copied {
    /// How long the log was when it began.
    log: u32,
    copied: u32,
}

impl Copied {
    /// Whether there is more that somebody reads around.
    fn is_held(self) -> bool {
        self.copied < self.log
    }
}

/// Copies what the log holds now, but for what somebody still reads around. `None` where that fails.
fn copy(watch: &Watch, conn: &Connection) -> Option<Copied> {
    // From a log that was cut off it would copy what is not there.
    watch.before(conn).ok()?;
    let pages = |number: c_int| u32::try_from(number).unwrap_or(0);
    match conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE) {
        Ok((log, copied)) => Some(Copied { log: pages(log), copied: pages(copied) }),
        // Another program copies it, such as a backup.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
            Some(Copied { log: watch.pages.load(Ordering::Relaxed), copied: 0 })
        }
        // Nothing is lost: the log keeps it, and is tried again when it has grown.
        Err(error) => {
            warn!("the log was not copied back: {}", watch.failure(&error));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{DatabaseFile, copier};
    use super::*;

    fn log_of(watch: &Watch) -> u32 {
        watch.pages.load(Ordering::Relaxed)
    }

    #[test]
    fn a_long_log_is_copied_beside_the_writer_and_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let file = DatabaseFile::lock(&path).unwrap();
        let mut writer = Connection::open(&path).unwrap();
        let setup = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB);
            INSERT INTO t VALUES (1, NULL), (2, 0);";
        writer.execute_batch(setup).unwrap();
        let watch = Arc::new(Watch::over(&file, &writer).unwrap());
        let mut checkpoints = Checkpoints::start(&watch, &mut writer, copier(&path).unwrap()).unwrap();
        let mut longest = 0;
        while longest < CHECKPOINT_PAGES {
            writer.execute("UPDATE t SET data = randomblob(4194304) WHERE id = 1", []).unwrap();
            longest = log_of(&watch);
            checkpoints.after_commit(&writer);
        }
        assert!(checkpoints.under_way, "nobody was asked to copy {longest} pages");
        let mut commits = 0;
        while log_of(&watch) >= longest {
            writer.execute("UPDATE t SET data = data + 1 WHERE id = 2", []).unwrap();
            commits += 1;
            checkpoints.after_commit(&writer);
            assert!(log_of(&watch) < LOG_TIMES_MAX * CHECKPOINT_PAGES, "the log has no end");
        }
        assert!(!checkpoints.under_way && log_of(&watch) < REST_PAGES);

        // What was written meanwhile is all there, in the file and what the log holds now.
        let (sizes, counted): (i64, i64) = Connection::open(&path)
            .unwrap()
            .query_row("SELECT length(a.data), b.data FROM t a, t b WHERE a.id = 1 AND b.id = 2", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!((sizes, counted), (4_194_304, commits));
    }

    /// What SQLite would read of it is zeros, and it would write them over the file.
    #[test]
    fn nothing_is_copied_from_a_log_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let file = DatabaseFile::lock(&path).unwrap();
        let mut writer = Connection::open(&path).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (data BLOB);").unwrap();
        let watch = Arc::new(Watch::over(&file, &writer).unwrap());
        let _checkpoints = Checkpoints::start(&watch, &mut writer, copier(&path).unwrap()).unwrap();
        writer.execute("INSERT INTO t VALUES (randomblob(100000))", []).unwrap();
        let before = std::fs::read(&path).unwrap();
        let log = std::fs::File::options().write(true).open(watch.log_name()).unwrap();
        let length = log.metadata().unwrap().len();
        log.set_len(0).unwrap();
        log.set_len(length - 1).unwrap();
        assert!(copy(&watch, &writer).is_none());
        assert!(watch.check().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
