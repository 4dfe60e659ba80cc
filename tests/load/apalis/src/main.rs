//! Jobs a second of apalis on SQLite that waits for the disk: pushed in batches, run natively, recorded as done.
//! Arguments: the file, how many jobs, how many in one batch. The last line is the figure.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_sqlite::{Config, SqlitePoolOptions, SqliteStorage};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

type Bad = Box<dyn std::error::Error + Send + Sync>;

/// Fetched, and recorded, at once: its documentation says that larger batches can be faster.
const FETCHED: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Bad> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, jobs, batch] = &arguments[..] else { return Err("expected: FILE JOBS BATCH".into()) };
    let (jobs, batch): (usize, usize) = (jobs.parse()?, batch.parse()?);
    // Its own `setup` turns `synchronous` off, on one connection. Here all are durable.
    let options = SqliteConnectOptions::from_str(&format!("sqlite:{file}"))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(30));
    // One connection: two would wait for each other's locks, longer than for the disk.
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    SqliteStorage::migrations().run(&pool).await?;
    // There is one worker: the lock that keeps others from a job is not needed besides the one that fetching takes.
    let config = Config::default().queue("noop").batch_size(FETCHED).lock_tasks(false);
    let mut storage = SqliteStorage::<usize>::new(&pool).with_config(config);

    let done = Arc::new(AtomicUsize::new(0));
    // Without one it looks for new jobs only where its own have ended, or at its heartbeat.
    let looking = Strategy::new().interval(Duration::from_millis(2));
    let worker = WorkerBuilder::new("beside")
        .backend(storage.clone().poll_with_strategy(looking))
        .data(Arc::clone(&done))
        .build(|_: usize, done: Data<Arc<AtomicUsize>>| async move {
            done.fetch_add(1, Ordering::Relaxed);
            Ok::<(), Bad>(())
        });
    let running = tokio::spawn(worker.run());
    let began = Instant::now();
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
    // Run is not yet recorded.
    loop {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM Jobs WHERE status <> 'Done'").fetch_one(&pool).await?;
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("{:.0}", jobs as f64 / began.elapsed().as_secs_f64());
    running.abort();
    Ok(())
}
