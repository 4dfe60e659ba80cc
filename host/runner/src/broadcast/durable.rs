//! The durable form of a broadcast: a job for each subscriber, with one batch id, through the queue.

use std::sync::Arc;

use wharf_core::bounds;
use wharf_core::ids::{Group, JobId, PluginId};
use wharf_core::job::{self, Job, NewJob};
use wharf_core::key::Lane;
use wharf_core::topic::Topic;
use wharf_engine::{Receive, Task};
use wharf_store::{JobFilter, Store, StoreError};

use super::BroadcastError;
use crate::catalog::Catalog;
use crate::other_nodes::{Receivers, Terms};
use crate::request::View;

/// A durable broadcast as far as it is.
#[derive(Clone, Debug)]
pub struct Batch {
    pub id: JobId,
    pub topic: Topic,
    /// By plugin.
    pub jobs: Vec<BatchJob>,
}

/// One subscriber's job, without its payload.
#[derive(Clone, Debug)]
pub struct BatchJob {
    pub plugin: PluginId,
    pub job: Job,
}

/// A broadcast whose jobs are not added yet.
pub(crate) struct Prepared {
    pub(crate) batch: job::Batch,
    pub(crate) jobs: Vec<NewJob>,
    /// Limit groups of subscribers that only others have.
    pub(crate) groups_elsewhere: Vec<Group>,
}

/// A job for each subscriber, wherever it is loaded; none where one of them would be missed.
pub(crate) fn prepare(
    view: &View,
    topic: &str,
    payload: Arc<[u8]>,
    store: &dyn Store,
) -> Result<Prepared, BroadcastError> {
    let topic: Topic = topic.parse().map_err(BroadcastError::BadTopic)?;
    view.is_open_for_broadcasts()?;
    let plugins = view.new_subscribers(&topic);
    if !plugins.is_empty() {
        return Err(BroadcastError::Loading { plugins, open: true });
    }
    let called = view.catalog.subscribers(&topic);
    let here: Vec<PluginId> = called.iter().map(|plugin| plugin.id.clone()).collect();
    let Receivers { known: there, untold } = view.others.receivers(&topic, &here, view.now);
    if !untold.is_empty() {
        return Err(BroadcastError::Elsewhere(untold));
    }
    let of_here = |receive: &Receive| {
        let Task { name, group, on_conflict, .. } = &receive.task;
        (name.clone(), group.clone(), *on_conflict)
    };
    let of_there = |terms: &Arc<Terms>| (terms.told.name.clone(), terms.told.group.clone(), terms.told.on_conflict);
    let receives = called.iter().filter_map(|plugin| plugin.manifest.receive.as_ref());
    let mut subscribers: Vec<_> = receives.map(of_here).chain(there.iter().map(of_there)).collect();
    subscribers.sort_by_key(|(name, ..)| name.plugin());
    // Each job keeps its own copy.
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
            payload: Arc::clone(&payload),
            priority: 0,
            due: None,
            token: None,
            on_conflict,
            batch: Some(batch.clone()),
        })
    });
    let jobs = jobs.collect::<Result<_, StoreError>>()?;
    let groups_elsewhere = there.iter().map(|terms| terms.told.group.clone()).collect();
    Ok(Prepared { batch, jobs, groups_elsewhere })
}

impl Batch {
    /// Reads a durable broadcast with the results that it has; `None` if no job of it is kept.
    pub(crate) async fn read(store: &dyn Store, id: JobId, catalog: &Catalog) -> Result<Option<Batch>, StoreError> {
        let (mut jobs, mut before) = (Vec::new(), None);
        loop {
            let wanted = JobFilter { batch: Some(id), before, max: bounds::PAGE_MAX, ..JobFilter::default() };
            let page = store.jobs(wanted).await?;
            before = page.jobs.last().map(|job| job.id);
            jobs.extend(page.jobs);
            if !page.more {
                break;
            }
        }
        let Some(topic) = jobs.first().and_then(|job| job.batch.as_ref()).map(|batch| batch.topic.clone()) else {
            return Ok(None);
        };
        let mut room = bounds::REPLIES_BYTES_MAX;
        for job in &mut jobs {
            if !job.standing.state.name().is_final() || room == 0 {
                continue;
            }
            // Forgotten since the page was read: it stays as it was seen.
            let Some(seen) = store.job(job.id, Arc::clone(catalog.limits())).await? else { continue };
            let bytes = seen.job.result.as_ref().map_or(0, |result| result.len() as u64);
            room = room.saturating_sub(bytes);
            *job = Job { payload: Arc::default(), ..seen.job };
        }
        let of_plugin = |job: Job| BatchJob { plugin: job.task.plugin(), job };
        let mut jobs: Vec<BatchJob> = jobs.into_iter().map(of_plugin).collect();
        jobs.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        Ok(Some(Batch { id, topic, jobs }))
    }
}
