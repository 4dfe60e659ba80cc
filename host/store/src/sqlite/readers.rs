//! Readers: a few connections that only read, each used by one question at a time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::file::{self, DatabaseFile};
use super::file_watch::Watch;
use crate::store::StoreError;

/// Questions answered at once; more wait. Reading is short, and each connection has a cache of its own.
const READERS: usize = 4;

pub(super) struct Readers {
    places: Arc<Semaphore>,
    shelf: Arc<Shelf>,
}

struct Shelf {
    /// As people call the file.
    path: PathBuf,
    real: PathBuf,
    watch: Arc<Watch>,
    /// Connections that nobody uses now. Locked to take one or put one back, never across an await.
    idle: Mutex<Vec<Connection>>,
}

impl Shelf {
    /// A connection is opened by the file's name, which must be the file's still.
    fn open(&self) -> Result<Connection, StoreError> {
        self.watch.names()?;
        let opened = file::reader(&self.real);
        self.watch.names()?;
        opened.map_err(|error| file::failure(&self.path, &error))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readers {
    pub(super) fn of(file: &DatabaseFile, watch: Arc<Watch>) -> Readers {
        let (path, real) = (file.path().to_owned(), file.real().to_owned());
        let shelf = Shelf { path, real, watch, idle: Mutex::new(Vec::new()) };
        Readers { places: Arc::new(Semaphore::new(READERS)), shelf: Arc::new(shelf) }
    }

    /// Answers a question on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = |what: &str| StoreError::Broken(format!("{}: {what}", self.shelf.path.display()));
        let place = self.places.clone().acquire_owned().await.map_err(|_| ended("its readers have stopped"))?;
        let shelf = self.shelf.clone();
        let answer = tokio::task::spawn_blocking(move || {
            let _place = place;
            shelf.watch.check()?;
            let idle = shelf.idle().pop();
            let conn = idle.map_or_else(|| shelf.open(), Ok)?;
            let answer = question(&conn);
            shelf.idle().push(conn);
            // What is wrong may be that the file is lost.
            answer.map_err(|error| shelf.watch.names().err().unwrap_or_else(|| file::failure(&shelf.path, &error)))
        });
        answer.await.map_err(|_| ended("a question failed half-way: see the host's log"))?
    }
}
