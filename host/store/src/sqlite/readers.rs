//! A few connections that only read, each used by one query at a time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::file::{self, DatabaseFile};
use super::file_watch::FileWatch;
use crate::store::StoreError;

/// Queries that run at once; more wait. Reading is short, and each connection has a cache of its own.
const READERS: usize = 4;

pub(super) struct Readers {
    permits: Arc<Semaphore>,
    pool: Arc<ConnectionPool>,
}

struct ConnectionPool {
    /// The path that the operator gave, for errors.
    path: PathBuf,
    real: PathBuf,
    watch: Arc<FileWatch>,
    /// Connections that no query uses. Locked to take one or return one, never across an await.
    idle: Mutex<Vec<Connection>>,
}

impl ConnectionPool {
    /// Opens a connection. The file's path must refer to the file before and after that, since it is opened by its path.
    fn open(&self) -> Result<Connection, StoreError> {
        self.watch.check_path()?;
        let opened = file::open_reader(&self.real);
        self.watch.check_path()?;
        opened.map_err(|error| file::store_error(&self.path, &error))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readers {
    pub(super) fn new(file: &DatabaseFile, watch: Arc<FileWatch>) -> Readers {
        let (path, real) = (file.path().to_owned(), file.real().to_owned());
        let pool = ConnectionPool { path, real, watch, idle: Mutex::new(Vec::new()) };
        Readers { permits: Arc::new(Semaphore::new(READERS)), pool: Arc::new(pool) }
    }

    /// Runs a query on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let broken = |what: &str| StoreError::Broken(format!("{}: {what}", self.pool.path.display()));
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| broken("its readers have stopped"))?;
        let pool = self.pool.clone();
        let result = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            pool.watch.check()?;
            let idle = pool.idle().pop();
            let conn = idle.map_or_else(|| pool.open(), Ok)?;
            let result = query(&conn);
            pool.idle().push(conn);
            // The query may have failed because the file is lost.
            let store_error =
                |error| pool.watch.check_path().err().unwrap_or_else(|| file::store_error(&pool.path, &error));
            result.map_err(store_error)
        });
        result.await.map_err(|_| broken("a query panicked: see the host's log"))?
    }
}
