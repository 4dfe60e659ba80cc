//! From an address to the store that it names: `memory:`, `sqlite:PATH`, or a bare path.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::memory::MemoryStore;
use crate::sqlite::SqliteStore;
use crate::store::{OpenError, Store};

/// Opens the store at `address`.
///
/// # Errors
/// When the address names no kind of store, or the store cannot be opened.
pub fn open(address: &str, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, OpenError> {
    let mend = |reason: &str| OpenError::MendAddress { address: address.to_owned(), reason: reason.to_owned() };
    match address.split_once(':') {
        _ if address.is_empty() => Err(mend("names nothing: a path, sqlite:PATH or memory: is expected")),
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::open(clock))),
        Some(("memory", _)) => Err(mend("has something after memory:, where nothing is expected")),
        Some(("sqlite", "")) => Err(mend("names no file: sqlite:PATH is expected")),
        // SQLite's own word for memory would give each of its connections a database of its own.
        Some(("sqlite", path)) if path.starts_with(':') => {
            Err(mend("names no file: for a store in memory it is memory:"))
        }
        Some(("sqlite", path)) => Ok(Arc::new(SqliteStore::open(Path::new(path), clock)?)),
        // A path may have a colon in it, but not before its first slash: "./a:b" is the way to write "a:b".
        Some((scheme, _)) if !scheme.contains('/') => {
            Err(mend("is of a kind that this host does not have: a path, sqlite:PATH or memory: is expected"))
        }
        _ => Ok(Arc::new(SqliteStore::open(Path::new(address), clock)?)),
    }
}
