//! The durable form of a broadcast: a job for each subscriber, with one batch id, through the queue.

use std::sync::Arc;

use wharf_core::bounds;
use wharf_core::ids::{Group, JobId, PluginId};
use wharf_core::job::{self, Job, NewJob};
use wharf_core::key::Lane;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::topic::Topic;
use wharf_engine::{Receive, Task};
use wharf_store::{JobFilter, Store, StoreError};

use super::request::{BroadcastError, check_open, loading_subscribers};
use crate::catalog::Catalog;
use crate::other_nodes::{Receivers, RemoteTask};
use crate::plugin_view::PluginView;

/// A durable broadcast and how far its jobs are.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The ID of the broadcast.
    pub id: JobId,
    /// The topic.
    pub topic: Topic,
    /// Number of its jobs that were deleted.
    pub deleted: u64,
    /// The other jobs of the subscribers, ordered by plugin.
    pub jobs: Vec<BatchJob>,
}

/// One subscriber's job, without its payload.
#[derive(Clone, Debug)]
pub struct BatchJob {
    /// The subscriber.
    pub plugin: PluginId,
    /// Its job; the payload is empty.
    pub job: Job,
}

/// A durable broadcast whose jobs are not added yet.
pub(crate) struct PreparedBroadcast {
    pub(crate) batch: job::Batch,
    pub(crate) jobs: Vec<NewJob>,
    /// The limit groups of subscribers that only other nodes have.
    pub(crate) groups_elsewhere: Vec<Group>,
}

/// Makes a job for each subscriber, wherever it is loaded.
///
/// # Errors
///
/// Returns `BadTopic`, `Loading` or `Elsewhere` if a subscriber would be missed, `TooLarge` if the payloads together are too
/// large, or `Store` if the store gives no IDs. Then there is no job.
pub(crate) fn prepare(
    view: &PluginView,
    topic: &str,
    payload: SharedBytes,
    store: &dyn Store,
) -> Result<PreparedBroadcast, BroadcastError> {
    let topic: Topic = topic.parse().map_err(BroadcastError::BadTopic)?;
    check_open(view)?;
    let plugins = loading_subscribers(view, &topic);
    if !plugins.is_empty() {
        return Err(BroadcastError::Loading { plugins, open: true });
    }
    let subscribers_here = view.catalog.subscribers(&topic);
    let here: Vec<PluginId> = subscribers_here.iter().map(|plugin| plugin.id.clone()).collect();
    let Receivers { known: elsewhere, unknown } = view.others.receivers(&topic, &here, view.now);
    if !unknown.is_empty() {
        return Err(BroadcastError::Elsewhere(unknown));
    }
    let of_here = |receive: &Receive| {
        let Task { name, group, on_conflict, .. } = &receive.task;
        (name.clone(), group.clone(), *on_conflict)
    };
    let of_elsewhere = |task: &Arc<RemoteTask>| {
        let announced = &task.announcement;
        (announced.name.clone(), announced.group.clone(), announced.on_conflict)
    };
    let receives = subscribers_here.iter().filter_map(|plugin| plugin.manifest.receive.as_ref());
    let mut subscribers: Vec<_> = receives.map(of_here).chain(elsewhere.iter().map(of_elsewhere)).collect();
    subscribers.sort_by_key(|(name, ..)| name.plugin());
    // Each job stores its own copy.
    let bytes = payload.len() as u64;
    let max = (bounds::BATCH_BYTES_MAX / subscribers.len().max(1) as u64).min(bounds::PAYLOAD_BYTES_MAX);
    if bytes > max {
        return Err(BroadcastError::TooLarge { bytes, max });
    }
    let batch = job::Batch { id: store.next_id()?, topic };
    let jobs = subscribers.into_iter().map(|(task, group, on_conflict)| {
        Ok(NewJob {
            id: store.next_id()?,
            task,
            lane: Lane { group, key: None },
            payload: payload.clone(),
            priority: 0,
            due: None,
            token: None,
            on_conflict,
            batch: Some(batch.clone()),
            lineage: Default::default(),
            tick: None,
        })
    });
    let jobs = jobs.collect::<Result<_, StoreError>>()?;
    let groups_elsewhere = elsewhere.iter().map(|task| task.announcement.group.clone()).collect();
    Ok(PreparedBroadcast { batch, jobs, groups_elsewhere })
}

impl Batch {
    /// Reads a durable broadcast with the results that it has so far; `None` if no job of it exists.
    ///
    /// # Errors
    ///
    /// Returns the store's error.
    pub(crate) async fn read(store: &dyn Store, id: JobId, catalog: &Catalog) -> Result<Option<Batch>, StoreError> {
        let (mut jobs, mut before) = (Vec::new(), None);
        loop {
            let filter = JobFilter { batch: Some(id), before, max: bounds::PAGE_MAX, ..JobFilter::default() };
            let page = store.jobs(filter).await?;
            before = page.jobs.last().map(|job| job.id);
            jobs.extend(page.jobs);
            if !page.more {
                break;
            }
        }
        let Some(topic) = jobs.first().and_then(|job| job.batch.as_ref()).map(|batch| batch.topic.clone()) else {
            return Ok(None);
        };
        let mut free_bytes = bounds::REPLIES_BYTES_MAX;
        for job in &mut jobs {
            if !job.status.state.name().is_final() || free_bytes == 0 {
                continue;
            }
            // If it was deleted since the page was read, it stays as the page had it.
            let Some(seen) = store.job(job.id, Arc::clone(catalog.limits())).await? else { continue };
            let bytes = seen.job.result.as_ref().map_or(0, |result| result.len() as u64);
            free_bytes = free_bytes.saturating_sub(bytes);
            *job = Job { payload: SharedBytes::default(), ..seen.job };
        }
        let of_plugin = |job: Job| BatchJob { plugin: job.task.plugin(), job };
        let mut jobs: Vec<BatchJob> = jobs.into_iter().map(of_plugin).collect();
        jobs.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        let deleted = store.deleted_of_batch(id).await?;
        Ok(Some(Batch { id, topic, deleted, jobs }))
    }
}
