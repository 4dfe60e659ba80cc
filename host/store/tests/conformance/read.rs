//! Reading: pages, filters and counts; and deletion.

use std::sync::Arc;

use wharf_core::bounds;
use wharf_core::ids::{Group, JobId};
use wharf_core::job::{Batch, Due, Entry, Job, Lineage, NewJob, StateName};
use wharf_core::lifecycle::Event;
use wharf_store::{JobFilter, QueueStats, StoreSize};

use crate::stage::{COUNT, Kind, LIST, MAKE, SECOND, Stage, block_on, failed, group, on_every_store, succeeded, task};

async fn page(stage: &Stage, filter: JobFilter) -> (Vec<JobId>, bool) {
    let page = stage.store.jobs(filter).await.unwrap();
    (page.jobs.iter().map(|job| job.id).collect(), page.more)
}

#[test]
fn a_job_that_does_not_exist_is_none() {
    on_every_store(|stage| async move {
        let id = stage.id();
        assert_eq!(stage.store.job(id, stage.declared.clone()).await.unwrap(), None);
        assert!(stage.store.entries(id, 0, 10).await.unwrap().is_empty());
        let (before, absent, after) = (stage.add(COUNT, "").await, stage.id(), stage.add(COUNT, "").await);
        assert!(before < absent && absent < after);
        for (id, exists) in [(before, true), (absent, false), (after, true)] {
            let summary = stage.store.job_summary(id).await.unwrap();
            assert_eq!(summary.map(|job| job.id), exists.then_some(id));
        }
    });
}

/// A follower of a job with a long log must not have to hold all of it in memory.
#[test]
fn a_page_of_a_log_is_bounded_in_bytes() {
    on_every_store(|stage| async move {
        let id = stage.add(COUNT, "").await;
        stage.store.claim(stage.wish(1)).await.unwrap();
        let chunk = Entry::Chunk(vec![7; (bounds::PAGE_BYTES_MAX / 2) as usize].into());
        stage.record(id, Event::Wrote { attempt: 1, entries: vec![chunk; 5] }).await.unwrap();
        let mut read = Vec::new();
        while let Some(last) = {
            let page = stage.store.entries(id, read.len() as u64, 1000).await.unwrap();
            assert!(page.len() <= 2, "{} entries in one page", page.len());
            read.extend(page.iter().map(|entry| entry.number));
            page.last().map(|entry| entry.number)
        } {
            assert_eq!(last as usize, read.len());
        }
        assert_eq!(read, [1, 2, 3, 4, 5]);
    });
}

#[test]
fn pages_go_from_the_newest_back() {
    on_every_store(|stage| async move {
        let mut all = stage.add_many(COUNT, "", 5).await;
        all.reverse();
        let (first, more) = page(&stage, JobFilter { max: 2, ..JobFilter::default() }).await;
        assert_eq!((first.as_slice(), more), (&all[..2], true));
        let (rest, more) = page(&stage, JobFilter { max: 3, before: Some(first[1]), ..JobFilter::default() }).await;
        assert_eq!((rest.as_slice(), more), (&all[2..], false));
        // A page is never empty if there are jobs, and never larger than the bound.
        assert_eq!(page(&stage, JobFilter::default()).await.0.len(), 1);
        stage.add_many(COUNT, "", bounds::PAGE_MAX as usize).await;
        let (largest, more) = page(&stage, JobFilter { max: u32::MAX, ..JobFilter::default() }).await;
        assert_eq!((largest.len(), more), (bounds::PAGE_MAX as usize, true));
    });
}

#[test]
fn pages_are_filtered_by_state_task_and_key() {
    on_every_store(|stage| async move {
        let ready = stage.add(LIST, "b").await;
        let delayed = NewJob { due: Some(Due::At(stage.clock_in(60))), ..stage.new_job(COUNT, "a") };
        stage.insert(delayed.clone()).await;
        let four = stage.add_many(COUNT, "a", 4).await;
        let mut wish = stage.wish(4);
        wish.tasks = [(task(COUNT), Group::from(&task(COUNT)))].into();
        assert_eq!(stage.store.claim(wish).await.unwrap().leased.len(), 4);
        stage.record(four[0], succeeded(1)).await.unwrap();
        stage.record(four[1], failed(1, None)).await.unwrap();
        stage.record(four[2], Event::Cancelled { attempt: 1, usage: Default::default(), origin: None }).await.unwrap();

        let of = |state| JobFilter { state: Some(state), max: 10, ..JobFilter::default() };
        assert_eq!(page(&stage, of(StateName::Waiting)).await.0, [delayed.id, ready]);
        assert_eq!(page(&stage, of(StateName::Running)).await.0, [four[3]]);
        assert_eq!(page(&stage, of(StateName::Succeeded)).await.0, [four[0]]);
        assert_eq!(page(&stage, of(StateName::Failed)).await.0, [four[1]]);
        assert_eq!(page(&stage, of(StateName::Cancelled)).await.0, [four[2]]);
        let key = JobFilter { key: Some("b".parse().unwrap()), max: 10, ..JobFilter::default() };
        assert_eq!(page(&stage, key).await.0, [ready]);
        let both =
            JobFilter { task: Some(task(COUNT)), key: Some("b".parse().unwrap()), max: 10, ..JobFilter::default() };
        assert!(page(&stage, both).await.0.is_empty());
        let unknown = JobFilter { task: Some(task("no/such")), max: 10, ..JobFilter::default() };
        assert!(page(&stage, unknown).await.0.is_empty());
    });
}

#[test]
fn a_job_is_found_by_its_token() {
    on_every_store(|stage| async move {
        let with_token =
            |task: &str, token: &str| NewJob { token: Some(token.parse().unwrap()), ..stage.new_job(task, "a") };
        stage.add(COUNT, "a").await;
        let (count, list, other) = (with_token(COUNT, "é'%"), with_token(LIST, "é'%"), with_token(COUNT, "other"));
        for new in [&count, &list, &other] {
            stage.insert(new.clone()).await;
        }
        let of = |name: Option<&str>, token: &str| JobFilter {
            task: name.map(task),
            token: Some(token.parse().unwrap()),
            max: 10,
            ..JobFilter::default()
        };
        assert_eq!(page(&stage, of(Some(COUNT), "é'%")).await, (vec![count.id], false));
        assert_eq!(page(&stage, of(None, "é'%")).await.0, [list.id, count.id]);
        assert_eq!(page(&stage, of(Some(LIST), "other")).await.0, []);
        assert_eq!(page(&stage, of(Some("no/such"), "other")).await.0, []);
        let state = |state| JobFilter { state: Some(state), ..of(Some(COUNT), "other") };
        assert_eq!(page(&stage, state(StateName::Waiting)).await.0, [other.id]);
        assert_eq!(page(&stage, state(StateName::Failed)).await.0, []);
    });
}

#[test]
fn the_jobs_of_a_durable_broadcast_are_found_by_its_id() {
    on_every_store(|stage| async move {
        let id = stage.id();
        let batch = Some(Batch { id, topic: "document.saved".parse().unwrap() });
        stage.add(COUNT, "a").await;
        let (mut found, mut of_other) = (Vec::new(), Vec::new());
        for task in [COUNT, LIST, MAKE] {
            let new = NewJob { batch: batch.clone(), ..stage.new_job(task, "") };
            found.insert(0, new.id);
            stage.insert(new).await;
            let other = batch.clone().map(|batch| Batch { id: stage.id(), ..batch });
            let new = NewJob { batch: other, ..stage.new_job(task, "") };
            of_other.push(new.id);
            stage.insert(new).await;
        }
        let wanted = |max, before| JobFilter { batch: Some(id), max, before, ..JobFilter::default() };
        assert_eq!(page(&stage, wanted(10, None)).await, (found.clone(), false));
        assert_eq!(page(&stage, wanted(2, None)).await, (found[..2].to_vec(), true));
        assert_eq!(page(&stage, wanted(2, Some(found[1]))).await, (found[2..].to_vec(), false));
        let waiting = JobFilter { state: Some(StateName::Waiting), ..wanted(10, None) };
        assert_eq!(page(&stage, waiting).await.0, found);
        let running = JobFilter { state: Some(StateName::Running), ..wanted(10, None) };
        assert_eq!(page(&stage, running).await.0, []);
    });
}

#[test]
fn a_page_has_all_of_a_job_but_payload_and_result() {
    on_every_store(|stage| async move {
        stage.add(COUNT, "a").await;
        let leased = stage.claim_one().await;
        stage.succeed(&leased).await.unwrap();
        let listed = stage.store.jobs(JobFilter { max: 1, ..JobFilter::default() }).await.unwrap().jobs.remove(0);
        let whole = stage.seen(listed.id).await.job;
        let bare = Job { payload: [].into(), result: None, ..whole };
        assert_eq!(stage.store.job_summary(listed.id).await.unwrap().as_ref(), Some(&bare));
        assert_eq!(listed, bare);
    });
}

#[test]
fn waiting_jobs_are_counted_for_each_plugin() {
    on_every_store(|stage| async move {
        let waiting = async || {
            let counted = stage.store.waiting_jobs().await.unwrap();
            counted.into_iter().map(|(plugin, count)| (plugin.to_string(), count)).collect::<Vec<_>>()
        };
        let plugin = task(COUNT).plugin().to_string();
        assert_eq!(waiting().await, []);
        stage.add_many(COUNT, "a", 3).await;
        let delayed = NewJob { due: Some(Due::At(stage.clock_in(60))), ..stage.new_job(COUNT, "") };
        let cancelled = delayed.id;
        stage.insert(delayed).await;
        assert_eq!(waiting().await, [(plugin.clone(), 4)]);
        let leased = stage.claim(2).await;
        assert_eq!((leased.len(), waiting().await), (2, vec![(plugin.clone(), 2)]));
        let attempt = leased[0].lease.attempt;
        stage.store.record(Arc::new(vec![(leased[0].lease.job, failed(attempt, Some(SECOND)))])).await.unwrap();
        assert_eq!(waiting().await, [(plugin.clone(), 3)]);
        stage.store.record(Arc::new(vec![(cancelled, Event::CancelRequested)])).await.unwrap();
        assert_eq!(waiting().await, [(plugin, 2)]);
    });
}

#[test]
fn a_job_keeps_its_lineage() {
    on_every_store(|stage| async move {
        let parent = stage.add(COUNT, "").await;
        let lineage = Lineage { parent: Some(parent), generation: 7 };
        let child = NewJob { lineage, priority: 1, ..stage.new_job(COUNT, "") };
        let id = child.id;
        stage.insert(child).await;
        let found = (stage.seen(parent).await.job.lineage, stage.seen(id).await.job.lineage);
        assert_eq!(found, (Lineage::default(), lineage));
        let generations: Vec<u32> = stage.claim(2).await.iter().map(|leased| leased.generation).collect();
        assert_eq!(generations, [7, 0]);
    });
}

#[test]
fn stats_count_unfinished_jobs() {
    on_every_store(|stage| async move {
        assert_eq!(stage.store.stats().await.unwrap(), QueueStats::default());
        let oldest = stage.clock_in(1);
        let delayed = NewJob { due: Some(Due::At(oldest)), ..stage.new_job(COUNT, "") };
        stage.insert(delayed).await;
        stage.pass(2 * SECOND);
        stage.add_many(LIST, "a", 3).await;
        let mut wish = stage.wish(2);
        wish.tasks = [(task(LIST), group(LIST))].into();
        let running = stage.store.claim(wish).await.unwrap().leased;
        stage.succeed(&running[0]).await.unwrap();
        let stats = stage.store.stats().await.unwrap();
        assert_eq!(stats.tasks, [(task(COUNT), 1, 0), (task(LIST), 1, 1)]);
        assert_eq!(stats.groups, [(group(LIST), 1)]);
    });
}

#[test]
fn a_store_says_how_large_it_is() {
    block_on(async {
        for kind in [Kind::Memory, Kind::Sqlite, Kind::Postgres] {
            let stage = Stage::new(kind).await;
            stage.add_many(COUNT, "", 300).await;
            let size = stage.store.size().await.unwrap();
            match kind {
                Kind::Memory => assert_eq!(size, StoreSize::default()),
                Kind::Sqlite => assert!(size.log_bytes.is_some_and(|bytes| bytes > 300 * 50), "{size:?}"),
                Kind::Postgres => assert!(size.bytes > 300 * 50 && size.log_bytes.is_none(), "{size:?}"),
            }
        }
    });
}

#[test]
fn jobs_that_finished_long_ago_are_deleted_the_oldest_first() {
    on_every_store(|stage| async move {
        let mut finished = Vec::new();
        for _ in 0..4 {
            stage.add(COUNT, "").await;
            let leased = stage.claim_one().await;
            stage.succeed(&leased).await.unwrap();
            finished.push(leased.lease.job);
            stage.pass(SECOND);
        }
        let waiting = stage.add(COUNT, "").await;
        let before = stage.seen(finished[3]).await.job.finished_at.unwrap();
        assert_eq!(stage.delete_finished(before, 2).await.unwrap(), 2);
        assert_eq!(stage.delete_finished(before, 9).await.unwrap(), 1);
        assert_eq!(page(&stage, JobFilter { max: 9, ..JobFilter::default() }).await.0, [waiting, finished[3]]);
        assert_eq!(stage.store.job(finished[0], stage.declared.clone()).await.unwrap(), None);
    });
}

#[test]
fn a_store_has_random_bytes_of_its_own_that_stay() {
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let seen = &seen;
    on_every_store(|stage| async move {
        let key = stage.store.seal_key().await.unwrap();
        assert_eq!(stage.store.seal_key().await.unwrap(), key);
        assert!(seen.lock().unwrap().insert(key), "two stores have the same");
        assert_ne!(key, [0; 32]);
    });
    let stage_of_file = async || {
        let stage = Stage::new(Kind::Sqlite).await;
        let key = stage.store.seal_key().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.db");
        wharf_store::backup(&stage.file().display().to_string(), &copy, &mut |_, _| {}).unwrap();
        let again = wharf_store::SqliteStore::open(&copy, std::sync::Arc::new(wharf_store::SystemClock)).unwrap();
        assert_eq!(wharf_store::StoreFiles::seal_key(&again).await.unwrap(), key, "also in a backup");
    };
    block_on(stage_of_file());
}
