//! From an address to the store that it names: `memory:`, `sqlite:PATH`, a bare path, or `postgres://…`.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::memory::MemoryStore;
use crate::postgres::{PostgresStore, without_password};
use crate::sqlite::SqliteStore;
use crate::store::{OpenError, Store};

/// Opens the store at `address`. The clock is that of a store of one host; several take the time from their database.
///
/// # Errors
/// When the address names no kind of store, or the store cannot be opened.
pub async fn open(address: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, OpenError> {
    let mend = |reason: &str| OpenError::MendAddress { address: without_password(address), reason: reason.to_owned() };
    match address.split_once(':') {
        _ if address.is_empty() => Err(mend("names nothing: a path, sqlite:PATH or memory: is expected")),
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::open(clock))),
        Some(("memory", _)) => Err(mend("has something after memory:, where nothing is expected")),
        Some(("sqlite", "")) => Err(mend("names no file: sqlite:PATH is expected")),
        // SQLite's own word for memory would give each of its connections a database of its own.
        Some(("sqlite", path)) if path.starts_with(':') => {
            Err(mend("names no file: for a store in memory it is memory:"))
        }
        Some(("sqlite", path)) => file(path, clock).await,
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::open(address).await?)),
        // A path may have a colon in it, but not before its first slash: "./a:b" is the way to write "a:b".
        Some((scheme, _)) if !scheme.contains('/') => Err(mend(
            "is of a kind that this host does not have: a path, sqlite:PATH, postgres://… or memory: is expected",
        )),
        _ => file(address, clock).await,
    }
}

/// On a thread that may wait for a slow disk.
async fn file(path: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, OpenError> {
    let owned = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(Path::new(&owned), clock)).await;
    let failed = |_| OpenError::MendFile { file: path.to_owned(), reason: "opening it failed half-way".to_owned() };
    Ok(Arc::new(opened.map_err(failed)??))
}
