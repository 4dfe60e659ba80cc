//! The writer: one thread, one transaction at a time.
//!
//! All operations that wait when it is free are committed together, which shares the cost of making them durable. Claims and
//! renewals go first, in a commit of their own that does not wait for the disk. No caller gets its result before the commit.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::checkpoint::Checkpoints;
use super::file::{self, DatabaseFile};
use super::file_watch::FileWatch;
use super::ledger::{SharedState, SqliteLedger};
use crate::clock::Clock;
use crate::store::{OpenError, StoreError};

/// Operations in the writer's queue; callers with more of them wait until there is a place.
const QUEUE_MAX: usize = 1024;
/// Operations in one transaction: enough that the disk's latency no longer matters, few enough that each gets its result soon.
const GROUP_MAX: usize = 512;

/// An operation in the writer's queue. It may run twice: once in a group that is rolled back, and then alone.
trait Operation: Send {
    fn run(&mut self, ledger: &mut SqliteLedger) -> rusqlite::Result<()>;
    /// Returns true if a power cut after the result was sent must not undo the operation.
    fn is_durable(&self) -> bool;
    /// Sends the result to the caller; `Err` if the transaction was rolled back. Returns true if others may wait for what
    /// changed.
    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) -> bool;
}

struct PendingOperation<T, F, N> {
    run: F,
    durable: bool,
    needs_nudge: N,
    result: Option<T>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F, N> Operation for PendingOperation<T, F, N>
where
    T: Send,
    F: FnMut(&mut SqliteLedger) -> rusqlite::Result<T> + Send,
    N: Fn(&T) -> bool + Send,
{
    fn run(&mut self, ledger: &mut SqliteLedger) -> rusqlite::Result<()> {
        self.result = Some((self.run)(ledger)?);
        Ok(())
    }

    fn is_durable(&self) -> bool {
        self.durable
    }

    fn finish(self: Box<Self>, outcome: Result<(), StoreError>) -> bool {
        let PendingOperation { needs_nudge, result, caller, .. } = *self;
        let never_ran = || StoreError::Broken("an operation was committed without having run: a bug".to_owned());
        let result = outcome.and_then(|()| result.ok_or_else(never_ran));
        let nudge = result.as_ref().is_ok_and(needs_nudge);
        // A caller that no longer waits loses the result, not the work.
        _ = caller.send(result);
        nudge
    }
}

/// The handle to the writer's thread. Dropping it waits until the thread has run all operations in its queue.
pub(super) struct SqliteWriter {
    operations: Option<mpsc::Sender<Box<dyn Operation>>>,
    thread: Option<JoinHandle<()>>,
    /// The store's path, for errors.
    name: String,
}

impl SqliteWriter {
    /// Starts the thread, which owns the file from then on.
    ///
    /// # Errors
    /// If the file can't be used, or no thread can be started.
    pub(super) fn start(
        file: DatabaseFile,
        conn: Connection,
        checkpoints: Checkpoints,
        watch: Arc<FileWatch>,
        (clock, nudge): (Arc<dyn Clock>, watch::Sender<u64>),
    ) -> Result<(SqliteWriter, SharedState), OpenError> {
        let (operations, queue) = mpsc::channel(QUEUE_MAX);
        let name = file.path().display().to_string();
        let (report_opened, opened) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            match SqliteLedger::open(&conn, clock) {
                Ok(ledger) => {
                    if report_opened.send(Ok(ledger.shared())).is_ok() {
                        run_queue((&file, &*watch), (ledger, checkpoints), queue, &nudge);
                    }
                }
                Err(error) => {
                    drop(checkpoints);
                    _ = report_opened.send(Err(error));
                }
            };
            watch.before_close(&conn);
            // The lock is released last.
            drop(conn);
            drop(file);
        };
        let unusable = |reason| OpenError::MendFile { file: name.clone(), reason };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(run)
            .map_err(|error| unusable(format!("could not start a thread for it: {error}")))?;
        let reason = match opened.recv() {
            Ok(Ok(shared)) => {
                return Ok((SqliteWriter { operations: Some(operations), thread: Some(thread), name }, shared));
            }
            Ok(Err(error)) => file::reason(&error),
            Err(_) => "its writer panicked: this is a bug of the host".to_owned(),
        };
        // The next attempt to open the file must find it unlocked.
        _ = thread.join();
        Err(unusable(reason))
    }

    /// Runs an operation in a transaction, and returns once it is durable. `needs_nudge` returns true if others may wait for
    /// what it did.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut SqliteLedger) -> rusqlite::Result<T> + Send + 'static,
        needs_nudge: impl Fn(&T) -> bool + Send + 'static,
    ) -> Result<T, StoreError> {
        self.submit(run, needs_nudge, true).await
    }

    /// Runs an operation in a transaction, and returns without waiting for the disk. It is for what means nothing after a power
    /// cut, which ends every attempt and every lease. Everything that is durable later comes after it, and makes it durable too.
    pub(super) async fn write_unsynced<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut SqliteLedger) -> rusqlite::Result<T> + Send + 'static,
        needs_nudge: impl Fn(&T) -> bool + Send + 'static,
    ) -> Result<T, StoreError> {
        self.submit(run, needs_nudge, false).await
    }

    async fn submit<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut SqliteLedger) -> rusqlite::Result<T> + Send + 'static,
        needs_nudge: impl Fn(&T) -> bool + Send + 'static,
        durable: bool,
    ) -> Result<T, StoreError> {
        let stopped = || format!("the writer of {} has stopped: restart the host", self.name);
        let (caller, result) = oneshot::channel();
        let operation = Box::new(PendingOperation { run, durable, needs_nudge, result: None, caller });
        let operations = self.operations.as_ref().ok_or_else(|| StoreError::Broken(stopped()))?;
        operations.send(operation).await.map_err(|_| StoreError::Broken(stopped()))?;
        result.await.map_err(|_| StoreError::Unknown(stopped()))?
    }
}

impl Drop for SqliteWriter {
    fn drop(&mut self) {
        drop(self.operations.take());
        // The file stays locked until the thread has closed it, and must be unlocked when this returns.
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// The store's files, as the writer's thread uses them.
type Files<'f> = (&'f DatabaseFile, &'f FileWatch);

/// Runs operations until all senders are dropped and the queue is empty.
fn run_queue(
    files: Files<'_>,
    (mut ledger, mut checkpoints): (SqliteLedger<'_>, Checkpoints),
    mut queue: mpsc::Receiver<Box<dyn Operation>>,
    nudge: &watch::Sender<u64>,
) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while queue.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        if let Err(lost) = files.1.check_before_write(ledger.conn) {
            finish_all(group.drain(..), &Err(lost));
            continue;
        }
        // Operations that need not be durable go first: their callers need not wait for the disk with the others.
        let (durable, unsynced) = group.drain(..).partition(|operation| operation.is_durable());
        let mut is_full = false;
        for (syncs, part) in [(false, unsynced), (true, durable)] {
            if run_group(files, &mut ledger, syncs, part, &mut is_full) {
                nudge.send_modify(|count| *count += 1);
            }
        }
        checkpoints.after_commit(ledger.conn);
        if is_full {
            checkpoints.free_space(ledger.conn);
        }
    }
}

fn finish_all(group: impl IntoIterator<Item = Box<dyn Operation>>, outcome: &Result<(), StoreError>) -> bool {
    group.into_iter().fold(false, |nudge, operation| nudge | operation.finish(outcome.clone()))
}

/// Runs operations in one transaction, or each alone if that fails, and sends their results. Returns true if others may wait
/// for what changed; sets `is_full` if an operation failed for lack of space.
fn run_group(
    files: Files<'_>,
    ledger: &mut SqliteLedger,
    syncs: bool,
    mut group: Vec<Box<dyn Operation>>,
    is_full: &mut bool,
) -> bool {
    if group.is_empty() {
        return false;
    }
    match commit(ledger, syncs, &mut group) {
        Ok(()) => finish_all(group, &check_committed(files, ledger, syncs)),
        Err(error) if group.len() == 1 || affects_all(&error) => {
            finish_all(group, &Err(store_error(files, ledger, &error, is_full)))
        }
        // One operation's failure must not affect the others: each runs again, alone.
        Err(_) => group.into_iter().fold(false, |nudge, operation| {
            let mut alone = vec![operation];
            let outcome = match commit(ledger, syncs, &mut alone) {
                Ok(()) => check_committed(files, ledger, syncs),
                Err(error) => Err(store_error(files, ledger, &error, is_full)),
            };
            nudge | finish_all(alone, &outcome)
        }),
    }
}

/// Checks that a restart would find what was committed: only then it is acknowledged. If the file was moved away in the
/// meantime it may be moved back, with the commit: so the outcome is unknown.
fn check_committed((_, watch): Files<'_>, ledger: &SqliteLedger, syncs: bool) -> Result<(), StoreError> {
    if !syncs {
        return Ok(());
    }
    watch.check_after_commit(ledger.conn).map_err(|lost| match lost {
        StoreError::Broken(why) => StoreError::Unknown(why),
        other => other,
    })
}

/// Returns true if each operation alone would fail like all together: if another program has locked the file, each would wait
/// once more; and a disk that did not confirm a commit may have written it all the same.
fn affects_all(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) || file::is_unconfirmed(error)
}

fn store_error(
    (database, watch): Files<'_>,
    ledger: &SqliteLedger,
    error: &rusqlite::Error,
    is_full: &mut bool,
) -> StoreError {
    *is_full |= file::is_full(database.path(), error);
    // The operation may have failed because the file is lost.
    if !file::is_unconfirmed(error)
        && let Err(lost) = watch.check_after_commit(ledger.conn)
    {
        return lost;
    }
    let error = file::store_error(database.path(), error);
    warn!("{error}");
    error
}

/// Runs all operations of the group and commits them, durably if `syncs`; if one fails, none has happened.
fn commit(ledger: &mut SqliteLedger, syncs: bool, group: &mut [Box<dyn Operation>]) -> rusqlite::Result<()> {
    let mut run = || {
        ledger.set_sync(syncs)?;
        ledger.conn.execute_batch("BEGIN IMMEDIATE")?;
        for operation in &mut *group {
            operation.run(ledger)?;
        }
        ledger.flush()?;
        ledger.conn.execute_batch("COMMIT")
    };
    let committed = run();
    if committed.is_ok() {
        ledger.after_commit();
    } else {
        // After some failures SQLite has rolled back by itself, and there is no transaction any more.
        if !ledger.conn.is_autocommit() {
            _ = ledger.conn.execute_batch("ROLLBACK");
        }
        ledger.after_rollback();
    }
    committed
}
