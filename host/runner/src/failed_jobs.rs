//! Tells listeners of each job that failed, with its attempts. They are read from the store once the failure is recorded, by one
//! task: nothing waits for it, and jobs that do not fail cost nothing.

use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;
use wharf_core::ids::{JobId, TaskName};
use wharf_core::job::State;

use crate::notice::{FailedJob, Listener, Notice};
use crate::store_health::WatchedStore;

/// Number of failed jobs that wait to be read. Of more than these, only the job and the task are told.
const WAITING_MAX: usize = 1024;

/// A job to read.
enum Ended {
    /// The job failed.
    Failed { task: TaskName, job: JobId },
    /// The lease of the job expired, so that it may have failed.
    Reclaimed(JobId),
}

/// Takes the jobs that failed on this node. Clones share a queue.
#[derive(Clone)]
pub(crate) struct FailedJobs {
    queue: Sender<Ended>,
    /// No more than the jobs that ran on nodes which died: an ID each.
    reclaimed: UnboundedSender<JobId>,
    listener: Listener,
}

/// Reads the jobs that failed.
pub(crate) struct FailedJobReader {
    queue: Receiver<Ended>,
    reclaimed: UnboundedReceiver<JobId>,
    store: WatchedStore,
    listener: Listener,
}

impl FailedJobs {
    /// Returns a queue of failed jobs, and the task that reads it.
    pub(crate) fn new(store: WatchedStore, listener: Listener) -> (FailedJobs, FailedJobReader) {
        let (to_reader, queue) = mpsc::channel(WAITING_MAX);
        let (to_reclaimed, reclaimed) = mpsc::unbounded_channel();
        let reader = FailedJobReader { queue, reclaimed, store, listener: listener.clone() };
        (FailedJobs { queue: to_reader, reclaimed: to_reclaimed, listener }, reader)
    }

    /// Takes a job that failed.
    pub(crate) fn failed(&self, task: &TaskName, job: JobId) {
        let task = task.clone();
        if let Err(unread) = self.queue.try_send(Ended::Failed { task, job }) {
            tell_unread(&self.listener, unread.into_inner());
        }
    }

    /// Takes a job whose lease expired. It never waits: leases of further jobs may have expired.
    pub(crate) fn reclaimed(&self, job: JobId) {
        // After the reader has ended nobody listens any more.
        let _ = self.reclaimed.send(job);
    }
}

impl FailedJobReader {
    /// Reads jobs until the host stops. Of failed jobs that are left then, only the job and the task are told; of jobs whose leases have
    /// expired, nothing is.
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = stopping.cancelled() => break,
                Some(ended) = self.queue.recv() => ended,
                Some(job) = self.reclaimed.recv() => Ended::Reclaimed(job),
                else => break,
            };
            self.tell(ended).await;
        }
        while let Ok(ended) = self.queue.try_recv() {
            tell_unread(&self.listener, ended);
        }
    }

    async fn tell(&self, ended: Ended) {
        let id = match &ended {
            Ended::Failed { job, .. } | Ended::Reclaimed(job) => *job,
        };
        // A store that fails says so by other calls.
        let read = async { Some((self.store.job_summary(id).await.ok()??, self.store.attempts(id).await.ok()?)) };
        match (read.await, ended) {
            (Some((job, _)), Ended::Reclaimed(_)) if !matches!(job.status.state, State::Failed) => {}
            (Some((job, attempts)), _) => {
                let failed = FailedJob { task: job.task.clone(), id, job: Some(job), attempts };
                self.listener.notify(&Notice::JobFailed(Box::new(failed)));
            }
            (None, ended) => tell_unread(&self.listener, ended),
        }
    }
}

fn tell_unread(listener: &Listener, ended: Ended) {
    if let Ended::Failed { task, job } = ended {
        let failed = FailedJob { task, id: job, job: None, attempts: Vec::new() };
        listener.notify(&Notice::JobFailed(Box::new(failed)));
    }
}
