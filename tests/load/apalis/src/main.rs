//! Measures the jobs per second of apalis on SQLite with durable commits: pushed in batches, run natively, recorded as done.
//! Arguments: the file, the number of jobs, the number of jobs in one batch. The last line of the output is the figure.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_sqlite::{Config, SqlitePoolOptions, SqliteStorage};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

type Bad = Box<dyn std::error::Error + Send + Sync>;

/// The number of jobs that are fetched and recorded at once. The documentation says that larger batches can be faster.
const FETCH_BATCH: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Bad> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, jobs, batch] = &arguments[..] else { return Err("expected: FILE JOBS BATCH".into()) };
    let (jobs, batch): (usize, usize) = (jobs.parse()?, batch.parse()?);
    // The `setup` of apalis turns `synchronous` off on one connection. Here every commit is durable.
    let options = SqliteConnectOptions::from_str(&format!("sqlite:{file}"))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(30));
    // One connection: two would wait longer for each other's locks than for the disk.
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    SqliteStorage::migrations().run(&pool).await?;
    // With one worker, jobs need no lock beyond the one that fetching takes.
    let config = Config::default().queue("noop").batch_size(FETCH_BATCH).lock_tasks(false);
    let mut storage = SqliteStorage::<usize>::new(&pool).with_config(config);

    let done = Arc::new(AtomicUsize::new(0));
    // Without an interval the worker polls only when its jobs have ended, or at its heartbeat.
    let polling = Strategy::new().interval(Duration::from_millis(2));
    let worker = WorkerBuilder::new("beside")
        .backend(storage.clone().poll_with_strategy(polling))
        .data(Arc::clone(&done))
        .build(|_: usize, done: Data<Arc<AtomicUsize>>| async move {
            done.fetch_add(1, Ordering::Relaxed);
            Ok::<(), Bad>(())
        });
    let running = tokio::spawn(worker.run());
    let started = Instant::now();
    for first in (0..jobs).step_by(batch) {
        storage.push_bulk((first..jobs.min(first + batch)).collect()).await?;
    }
    while done.load(Ordering::Relaxed) < jobs {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if running.is_finished() {
            running.await??;
            return Err("the worker stopped before all jobs had run".into());
        }
    }
    // A job that has run is not yet recorded.
    loop {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM Jobs WHERE status <> 'Done'").fetch_one(&pool).await?;
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("{:.0}", jobs as f64 / started.elapsed().as_secs_f64());
    running.abort();
    Ok(())
}
