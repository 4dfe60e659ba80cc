//! Checkpoints: what has gathered in the log goes back into the file, so that the log can begin anew.
//!
//! Most of it is copied by a thread of its own, while the writer goes on. What the writer has added meanwhile is little,
//! and it copies that itself between two transactions: only a log that is copied to its end can begin anew.
//! None of this makes anything durable: a commit is on the disk, in the log, before it is answered.

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, DEFAULT_NAME, ErrorCode};
use tracing::warn;

use super::file;

/// The log is copied back when it has grown by this many pages (64 MiB). The longer it waits, the more often a page was
/// rewritten in the meantime and is copied but once.
const CHECKPOINT_PAGES: u32 = 16_000;
/// So much may be left to the writer (4 MiB): a moment's work.
const REST_PAGES: u32 = 1_000;
/// How often the thread goes over a log to which the writer keeps adding more than that.
const PASSES: usize = 4;
/// Where copying cannot keep up with writing, the writer waits for it from here on (256 MiB), so that the log has an end.
const LOG_PAGES_MAX: u32 = 4 * CHECKPOINT_PAGES;

/// The writer's side. Dropping it lets a copy that goes on finish, and waits for that.
pub(super) struct Checkpoints {
    path: PathBuf,
    /// How long the last commit has left the log, in pages.
    log: Arc<AtomicU32>,
    /// How long the log was when it was last copied; zero once it has begun anew.
    copied_at: u32,
    under_way: bool,
    ask: Option<SyncSender<()>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// `writer` says how long the log is, at each commit; `copier` is a second connection to the same file.
    pub(super) fn start(path: &Path, writer: &mut Connection, copier: Connection) -> rusqlite::Result<Checkpoints> {
        let log = Arc::new(AtomicU32::new(0));
        let counted = log.clone();
        // Takes the place of SQLite's own checkpoints, which would stop the writer.
        writer.wal_hook(Some(move |_: &mut Wal, pages: c_int| {
            counted.store(pages.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }))?;
        let (ask, asked) = mpsc::sync_channel(1);
        let (tell, done) = mpsc::sync_channel(1);
        let (of, length) = (path.to_owned(), log.clone());
        let copy_when_asked = move || {
            while asked.recv().is_ok() {
                copy_most(&of, &copier, &length);
                if tell.send(()).is_err() {
                    return;
                }
            }
        };
        // Where no thread is to be had, nobody takes the wish, and the writer copies for itself.
        let thread = thread::Builder::new().name("store-copier".to_owned()).spawn(copy_when_asked);
        let thread = thread.inspect_err(|error| warn!("the store's log is copied by its writer: {error}")).ok();
        Ok(Checkpoints { path: path.to_owned(), log, copied_at: 0, under_way: false, ask: Some(ask), done, thread })
    }

    /// Keeps the log short. Called by the writer after each transaction, with its connection.
    pub(super) fn after_commit(&mut self, writer: &Connection) {
        let log = self.log.load(Ordering::Relaxed);
        if self.under_way {
            if log >= LOG_PAGES_MAX {
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
        if log - self.copied_at >= CHECKPOINT_PAGES {
            self.under_way = true;
            if self.ask.as_ref().is_none_or(|ask| ask.try_send(()).is_err()) {
                self.finish(writer, log);
            }
        }
    }

    fn finish(&mut self, writer: &Connection, log: u32) {
        copy(&self.path, writer);
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

/// Copies the log until little is left of it.
fn copy_most(path: &Path, copier: &Connection, log: &AtomicU32) {
    for _ in 0..PASSES {
        let Some(copied) = copy(path, copier) else { return };
        if log.load(Ordering::Relaxed).saturating_sub(copied) <= REST_PAGES {
            return;
        }
    }
}

/// Copies what the log holds now, but for what somebody still reads around. Returns how much of it is copied by now.
fn copy(path: &Path, conn: &Connection) -> Option<u32> {
    match conn.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE) {
        Ok((_, copied)) => u32::try_from(copied).ok(),
        // Another program copies it, such as a backup.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => None,
        // Nothing is lost: the log keeps it, and is tried again when it has grown.
        Err(error) => {
            warn!("the log was not copied back: {}", file::failure(path, &error));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_copied_beside_the_writer_and_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let mut writer = Connection::open(&path).unwrap();
        let setup = "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB);
            INSERT INTO t VALUES (1, NULL), (2, 0);";
        writer.execute_batch(setup).unwrap();
        let mut checkpoints = Checkpoints::start(&path, &mut writer, file::copier(&path).unwrap()).unwrap();
        let log = checkpoints.log.clone();
        let mut longest = 0;
        while longest < CHECKPOINT_PAGES {
            writer.execute("UPDATE t SET data = randomblob(4194304) WHERE id = 1", []).unwrap();
            longest = log.load(Ordering::Relaxed);
            checkpoints.after_commit(&writer);
        }
        assert!(checkpoints.under_way, "nobody was asked to copy {longest} pages");
        let mut commits = 0;
        while log.load(Ordering::Relaxed) >= longest {
            writer.execute("UPDATE t SET data = data + 1 WHERE id = 2", []).unwrap();
            commits += 1;
            checkpoints.after_commit(&writer);
            assert!(log.load(Ordering::Relaxed) < LOG_PAGES_MAX, "the log has no end");
        }
        assert!(!checkpoints.under_way && log.load(Ordering::Relaxed) < REST_PAGES);

        // What was written meanwhile is all there, in the file and what the log holds now.
        let (sizes, counted): (i64, i64) = Connection::open(&path)
            .unwrap()
            .query_row("SELECT length(a.data), b.data FROM t a, t b WHERE a.id = 1 AND b.id = 2", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        assert_eq!((sizes, counted), (4_194_304, commits));
    }
}
