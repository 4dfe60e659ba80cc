//! Opens the store that an address names: `memory:`, `sqlite:PATH`, a bare path, or `postgres://…`.

use std::path::Path;
use std::sync::Arc;

use crate::address_text::{is_parameter_list, without_password};
use crate::clock::Clock;
use crate::memory::MemoryStore;
use crate::postgres::PostgresStore;
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
        _ if is_parameter_list(address) => Err(invalid(
            "is a list of parameters; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE, or sqlite:PATH for a file",
        )),
        _ if address.is_empty() => Err(invalid("is empty; expected a path, sqlite:PATH, postgres://… or memory:")),
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::open(clock))),
        Some(("memory", _)) => Err(invalid("is invalid: expected nothing after memory:")),
        Some(("sqlite", "")) => Err(invalid("has an empty path; expected sqlite:PATH")),
        // SQLite's own `:memory:` would give each of its connections a database of its own.
        Some(("sqlite", path)) if path.starts_with(':') => {
            Err(invalid("does not name a file; expected sqlite:PATH, or memory: for a store in memory"))
        }
        Some(("sqlite", path)) if path.starts_with("//") => {
            // Some programs read `sqlite:///wharf.db` as a path from the root, others from the working directory.
            let name = path.trim_start_matches('/').split('?').next().unwrap_or_default();
            let name = if name.is_empty() || name.starts_with(':') { "wharf.db" } else { name };
            Err(invalid(&format!(
                "is a URL; expected sqlite:PATH: sqlite:{name} for a file in the working directory, sqlite:/{name} for a path from \
                 the root"
            )))
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
    if let Some((file, _)) = path.split_once('?').filter(|(_, options)| options.contains('=')) {
        let reason = format!("has options after `?`, and a SQLite store takes none; expected sqlite:{file}");
        return Err(OpenError::MendAddress { address: without_password(path), reason });
    }
    let owned = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(Path::new(&owned), clock)).await;
    let panicked = |_| OpenError::MendFile {
        file: path.to_owned(),
        reason: "opening it panicked: this is a bug of the host".to_owned(),
    };
    Ok(Arc::new(opened.map_err(panicked)??))
}
