//! The writer: one thread, one transaction at a time. What waits when it comes by is committed together,
//! so that the cost of making it durable is shared. Claims and renewals go first, in a commit of their own that does not wait
//! for the disk. Nobody is answered before the commit.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::checkpoint::Checkpoints;
use super::file::{self, DatabaseFile};
use super::file_watch::Watch;
use super::ledger::{Ledger, Opened};
use crate::clock::Clock;
use crate::store::{OpenError, StoreError};

/// Operations that wait for the writer; more of them wait outside, and their callers with them.
const WAITING_MAX: usize = 1024;
/// Operations in one transaction: enough that the disk's pace no longer counts, few enough that all are answered soon.
const GROUP_MAX: usize = 512;

/// An operation that waits for the writer. It may be run twice: the first time in a group that came to nothing.
trait Operation: Send {
    fn run(&mut self, ledger: &mut Ledger) -> rusqlite::Result<()>;
    /// Whether a power cut after the answer may not take it back.
    fn must_last(&self) -> bool;
    /// Tells the caller; `Err` if its transaction was undone. True if something changed that others wait for.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) -> bool;
}

struct Asked<T, F, N> {
    run: F,
    must_last: bool,
    worth_a_nudge: N,
    result: Option<T>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F, N> Operation for Asked<T, F, N>
where
    T: Send,
    F: FnMut(&mut Ledger) -> rusqlite::Result<T> + Send,
    N: Fn(&T) -> bool + Send,
{
    fn run(&mut self, ledger: &mut Ledger) -> rusqlite::Result<()> {
        self.result = Some((self.run)(ledger)?);
        Ok(())
    }

    fn must_last(&self) -> bool {
        self.must_last
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) -> bool {
        let Asked { worth_a_nudge, result, answer: caller, .. } = *self;
        let never_ran = || StoreError::Broken("an operation was committed that never ran".to_owned());
        let answer = outcome.and_then(|()| result.ok_or_else(never_ran));
        let nudge = answer.as_ref().is_ok_and(worth_a_nudge);
        // A caller that no longer waits has lost the answer, not the work.
        _ = caller.send(answer);
        nudge
    }
}

/// The way to the writer's thread. Dropping it lets the thread finish what waits, and waits for that.
pub(super) struct Writer {
    operations: Option<mpsc::Sender<Box<dyn Operation>>>,
    thread: Option<JoinHandle<()>>,
    /// How the store is called in errors.
    name: String,
}

impl Writer {
    /// Takes over the file.
    ///
    /// # Errors
    /// When the file cannot be used, or there is no thread for it.
    pub(super) fn start(
        file: DatabaseFile,
        conn: Connection,
        checkpoints: Checkpoints,
        watch: Arc<Watch>,
        (clock, nudge): (Arc<dyn Clock>, watch::Sender<u64>),
    ) -> Result<(Writer, Opened), OpenError> {
        let (operations, waiting) = mpsc::channel(WAITING_MAX);
        let name = file.path().display().to_string();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let own = move || {
            match Ledger::open(&conn, clock) {
                Ok(ledger) => {
                    if tell.send(Ok(ledger.opened())).is_ok() {
                        serve((&file, &*watch), (ledger, checkpoints), waiting, &nudge);
                    }
                }
                Err(error) => {
                    drop(checkpoints);
                    _ = tell.send(Err(error));
                }
            };
            watch.closing(&conn);
            // The lock goes last.
            drop(conn);
            drop(file);
        };
        let unusable = |reason| OpenError::MendFile { file: name.clone(), reason };
        let thread = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(own)
            .map_err(|error| unusable(format!("no thread could be started: {error}")))?;
        let why = match told.recv() {
            Ok(Ok(opened)) => return Ok((Writer { operations: Some(operations), thread: Some(thread), name }, opened)),
            Ok(Err(error)) => file::reason(&error),
            Err(_) => "its writer panicked: this is a bug of the host".to_owned(),
        };
        // So that whoever tries again finds the file free.
        _ = thread.join();
        Err(unusable(why))
    }

    /// Runs an operation in a transaction and answers once it is durable. `worth_a_nudge` says whether others may wait
    /// for what it did.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Ledger) -> rusqlite::Result<T> + Send + 'static,
        worth_a_nudge: impl Fn(&T) -> bool + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(run, worth_a_nudge, true).await
    }

    /// The same for what means nothing after a power cut, which ends every attempt and every lease: the answer does not wait
    /// for the disk. All that is durable later comes after it, and makes it durable too.
    pub(super) async fn write_for_now<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Ledger) -> rusqlite::Result<T> + Send + 'static,
        worth_a_nudge: impl Fn(&T) -> bool + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(run, worth_a_nudge, false).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        run: impl FnMut(&mut Ledger) -> rusqlite::Result<T> + Send + 'static,
        worth_a_nudge: impl Fn(&T) -> bool + Send + 'static,
        must_last: bool,
    ) -> Result<T, StoreError> {
        let gone = || format!("the writer of {} has stopped: restart the host", self.name);
        let (answer, answered) = oneshot::channel();
        let operation = Box::new(Asked { run, must_last, worth_a_nudge, result: None, answer });
        let operations = self.operations.as_ref().ok_or_else(|| StoreError::Broken(gone()))?;
        operations.send(operation).await.map_err(|_| StoreError::Broken(gone()))?;
        answered.await.map_err(|_| StoreError::Unknown(gone()))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.operations.take());
        // The file stays locked until the thread has closed it: whoever opens it next must find it free.
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// The store's files, as the writer's thread knows them.
type Files<'f> = (&'f DatabaseFile, &'f Watch);

fn serve(
    files: Files<'_>,
    (mut ledger, mut checkpoints): (Ledger<'_>, Checkpoints),
    mut waiting: mpsc::Receiver<Box<dyn Operation>>,
    nudge: &watch::Sender<u64>,
) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    while waiting.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        if let Err(lost) = files.1.before(ledger.conn) {
            answer_all(group.drain(..), &Err(lost));
            continue;
        }
        // What need not last goes first: who asked for it has no reason to wait for the disk with the others.
        let (lasting, passing) = group.drain(..).partition(|operation| operation.must_last());
        let mut full = false;
        for (must_last, part) in [(false, passing), (true, lasting)] {
            if serve_together(files, &mut ledger, must_last, part, &mut full) {
                nudge.send_modify(|count| *count += 1);
            }
        }
        checkpoints.after_commit(ledger.conn);
        if full {
            checkpoints.make_room(ledger.conn);
        }
    }
}

fn answer_all(group: impl IntoIterator<Item = Box<dyn Operation>>, outcome: &Result<(), StoreError>) -> bool {
    group.into_iter().fold(false, |nudge, operation| nudge | operation.answer(outcome.clone()))
}

/// Carries out operations in one transaction and answers each. True if something changed that others wait for; `full` if
/// something found no room.
fn serve_together(
    files: Files<'_>,
    ledger: &mut Ledger,
    must_last: bool,
    mut group: Vec<Box<dyn Operation>>,
    full: &mut bool,
) -> bool {
    if group.is_empty() {
        return false;
    }
    match commit(ledger, must_last, &mut group) {
        Ok(()) => answer_all(group, &lasted(files, ledger, must_last)),
        Err(error) if group.len() == 1 || is_everybodys(&error) => {
            answer_all(group, &Err(refuse(files, ledger, &error, full)))
        }
        // Somebody's failure is nobody else's: each again, alone.
        Err(_) => group.into_iter().fold(false, |nudge, operation| {
            let mut alone = vec![operation];
            let outcome = match commit(ledger, must_last, &mut alone) {
                Ok(()) => lasted(files, ledger, must_last),
                Err(error) => Err(refuse(files, ledger, &error, full)),
            };
            nudge | answer_all(alone, &outcome)
        }),
    }
}

/// What was committed is acknowledged if a restart would find it. Where the file was taken away meanwhile it may be put back,
/// and then it does.
fn lasted((_, watch): Files<'_>, ledger: &Ledger, must_last: bool) -> Result<(), StoreError> {
    if !must_last {
        return Ok(());
    }
    watch.after(ledger.conn).map_err(|lost| match lost {
        StoreError::Broken(why) => StoreError::Unknown(why),
        other => other,
    })
}

/// Whether each alone would fail like all together: locked by another program, each would wait once more; and a disk that did
/// not confirm what it was given may have it all the same.
fn is_everybodys(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) || file::is_unconfirmed(error)
}

fn refuse((database, watch): Files<'_>, ledger: &Ledger, error: &rusqlite::Error, full: &mut bool) -> StoreError {
    *full |= file::is_full(database.path(), error);
    // What is wrong may be that the file is lost.
    if !file::is_unconfirmed(error)
        && let Err(lost) = watch.after(ledger.conn)
    {
        return lost;
    }
    let refusal = file::failure(database.path(), error);
    warn!("{refusal}");
    refusal
}

/// All operations of the group are done, durably if they must last; or none happened.
fn commit(ledger: &mut Ledger, must_last: bool, group: &mut [Box<dyn Operation>]) -> rusqlite::Result<()> {
    let mut run = || {
        ledger.sync(must_last)?;
        ledger.conn.execute_batch("BEGIN IMMEDIATE")?;
        for operation in &mut *group {
            operation.run(ledger)?;
        }
        ledger.settle()?;
        ledger.conn.execute_batch("COMMIT")
    };
    let done = run();
    if done.is_ok() {
        ledger.committed();
    } else {
        // After some failures SQLite has undone the transaction by itself, and there is nothing left to roll back.
        if !ledger.conn.is_autocommit() {
            _ = ledger.conn.execute_batch("ROLLBACK");
        }
        ledger.doubt();
    }
    done
}
