//! Opens the store that an address names: `memory:`, `sqlite:PATH`, a bare path, or `postgres://…`.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::memory::MemoryStore;
use crate::postgres::{PostgresStore, without_password};
use crate::sqlite::SqliteStore;
use crate::store::{OpenError, Store};

/// Opens the store at `address`. A store of one host uses `clock`; hosts that share a database use the database's clock.
///
/// # Errors
/// If the address is not valid, or the store can't be opened.
pub async fn open(address: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, OpenError> {
    let invalid =
        |reason: &str| OpenError::MendAddress { address: without_password(address), reason: reason.to_owned() };
    match address.split_once(':') {
        _ if address.is_empty() => Err(invalid("is empty; expected a path, sqlite:PATH, postgres://… or memory:")),
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::open(clock))),
        Some(("memory", _)) => Err(invalid("is invalid: expected nothing after memory:")),
        Some(("sqlite", "")) => Err(invalid("has an empty path; expected sqlite:PATH")),
        // SQLite's own `:memory:` would give each of its connections a database of its own.
        Some(("sqlite", path)) if path.starts_with(':') => {
            Err(invalid("does not name a file; expected sqlite:PATH, or memory: for a store in memory"))
        }
        Some(("sqlite", path)) => open_file(path, clock).await,
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::open(address).await?)),
        // A path may contain a colon, but not before its first slash: "./a:b" is the way to write "a:b".
        Some((scheme, _)) if !scheme.contains('/') => {
            Err(invalid("is of an unknown kind; expected a path, sqlite:PATH, postgres://… or memory:"))
        }
        _ => open_file(address, clock).await,
    }
}

/// Opens a SQLite store on a thread that may wait for a slow disk.
async fn open_file(path: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, OpenError> {
    let owned = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(Path::new(&owned), clock)).await;
    let panicked = |_| OpenError::MendFile {
        file: path.to_owned(),
        reason: "opening it panicked: this is a bug of the host".to_owned(),
    };
    Ok(Arc::new(opened.map_err(panicked)??))
}
