//! How long one answer to a filter takes, at worst, among many jobs.
//!
//! `cargo bench --workspace --bench find`, with the variables that `many_jobs` names. At the end: how long a summary takes.

mod many_jobs;

use std::sync::Arc;
use std::time::Instant;

use many_jobs::{FILTERS, Filled};
use wharf_core::bounds;
use wharf_core::find::{JobCursor, JobOrder, JobQuery};
use wharf_core::time::Timestamp;
use wharf_store::{Clock as _, FindRequest, PostgresStore, SqliteStore, Store, SystemClock};

/// Answers of one list that are measured.
const PAGES: usize = 40;

/// Measures one list: how long its answers took, in milliseconds, the median and the longest; how many jobs an answer looked at;
/// how many were found; and whether the list ended.
async fn measure(store: &dyn Store, filter: &str, order: JobOrder, now: Timestamp) -> (f64, f64, u64, usize, bool) {
    let query = Arc::new(JobQuery::parse(filter, now).expect("a filter"));
    let (mut after, mut times, mut looked_at, mut found) = (None::<JobCursor>, Vec::new(), 0, 0);
    for _ in 0..PAGES {
        let request = FindRequest { order, after, ..FindRequest::new(query.clone(), Arc::default(), 100) };
        let begin = Instant::now();
        let page = store.find(request).await.expect("an answer");
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        looked_at += page.looked_at;
        found += page.jobs.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1], looked_at / times.len() as u64, found, after.is_none())
}

/// Measures how long counting what waits and runs takes, in milliseconds: the median and the longest.
async fn measure_summary(store: &dyn Store) -> (f64, f64) {
    let mut times = Vec::new();
    for _ in 0..PAGES {
        let begin = Instant::now();
        store.backlog(Arc::default(), bounds::FIND_TIME).await.expect("a backlog");
        times.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder for the bench");
    let store: Arc<dyn Store> = match many_jobs::fill(folder.path()).await {
        Filled::Postgres(address) => Arc::new(PostgresStore::open(&address).await.expect("a store")),
        Filled::Sqlite => {
            Arc::new(SqliteStore::open(folder.path().join(many_jobs::FILE), Arc::new(SystemClock)).expect("a store"))
        }
    };
    println!("{} jobs; times of one answer in ms, of up to {PAGES} answers", many_jobs::jobs());
    println!("{:>8} {:>8} {:>10} {:>7}  filter", "median", "longest", "looked at", "found");
    for (filter, order) in FILTERS {
        let (median, longest, looked_at, found, ended) = measure(&*store, filter, order, SystemClock.now()).await;
        let end = if ended { "" } else { ", and more" };
        println!("{median:>8.1} {longest:>8.1} {looked_at:>10} {found:>7}  {order:?} {filter}{end}");
    }
    let (median, longest) = measure_summary(&*store).await;
    println!("{median:>8.1} {longest:>8.1} {:>10} {:>7}  a summary of what waits and runs", "", "");
}
