//! Opens the store that the settings name. A database that answers and lets nobody in yet is waited for.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wharf_store::{OpenError, Store, SystemClock};

use super::cli_error::{Ending, Exit};
use crate::config::Settings;
use crate::http::{Guard, connections, startup_routes};

/// Between two tries: those who use the database go on meanwhile.
const AGAIN: Duration = Duration::from_secs(2);
/// Only probes ask.
const CONNECTIONS_MAX: usize = 64;

/// Opens the store, or says why not.
pub(crate) async fn store(address: &str) -> Result<Arc<dyn Store>, Ending> {
    open(address).await.map_err(|error| refused(&error))
}

async fn open(address: &str) -> Result<Arc<dyn Store>, OpenError> {
    wharf_store::open(address, Arc::new(SystemClock)).await
}

fn refused(error: &OpenError) -> Ending {
    Ending::new(Exit::CannotStart, error.to_string())
}

/// The same for a host: as long as the database says that it will let it in later, it waits, and says so to whoever asks.
pub(crate) async fn store_in_time(settings: &Settings, listener: &TcpListener) -> anyhow::Result<Arc<dyn Store>> {
    let first = match open(&settings.store).await {
        Err(error @ OpenError::AwaitDatabase { .. }) => error.to_string(),
        opened => return Ok(opened.map_err(|error| refused(&error))?),
    };
    let address = listener.local_addr().context("could not read the address that was listened on")?;
    warn!("{first}; it is tried again until it lets this host in, and http://{address}/ready says so");
    let (say, why) = watch::channel(first);
    let stopping = CancellationToken::new();
    // Ends, too, where the start is given up.
    let _end = stopping.clone().drop_guard();
    // Another handle of the same socket: the host listens there afterwards.
    let socket = listener.as_fd().try_clone_to_owned().context("could not listen while the start waits")?;
    let listener = TcpListener::from_std(socket.into()).context("could not listen while the start waits")?;
    let guard = Guard::new(settings.token.clone(), settings.listen.ip().is_loopback());
    let routes = startup_routes(why, guard);
    let serving = tokio::spawn(connections::serve(listener, routes, CONNECTIONS_MAX, stopping.clone()));
    loop {
        tokio::time::sleep(AGAIN).await;
        match open(&settings.store).await {
            Err(error @ OpenError::AwaitDatabase { .. }) => {
                say.send_replace(error.to_string());
            }
            opened => {
                stopping.cancel();
                // A client that reads slowly does not keep the host from starting.
                let _ = tokio::time::timeout(AGAIN, serving).await;
                let store = opened.map_err(|error| refused(&error))?;
                info!("the store is open");
                return Ok(store);
            }
        }
    }
}
