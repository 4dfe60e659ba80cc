//! Opens the store that the settings name, and waits for a database that does not accept this host yet.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wharf_store::{OpenError, Store, SystemClock};

use crate::access::Tokens;
use crate::cli_error::{CliError, ExitStatus};
use crate::config::Settings;
use crate::http::{ConnectionBounds, Guard, connections, startup_routes};

/// The pause between two tries, during which others can go on using the database.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Connections that are served while the start waits; only probes connect then.
const CONNECTIONS_MAX: usize = 64;

/// Opens the store at `address`.
///
/// # Errors
/// When it cannot be opened; the error says why.
pub(crate) async fn open_store(address: &str) -> Result<Arc<dyn Store>, CliError> {
    open(address).await.map_err(|error| cannot_open(&error))
}

async fn open(address: &str) -> Result<Arc<dyn Store>, OpenError> {
    wharf_store::open(address, Arc::new(SystemClock)).await
}

fn cannot_open(error: &OpenError) -> CliError {
    CliError::new(ExitStatus::CannotStart, error.to_string())
}

/// Opens the store of a host. While the database reports that it will accept the host later, this tries again and answers
/// `/ready` on `listener` with the reason.
pub(crate) async fn open_store_when_available(
    settings: &Settings,
    tokens: &Tokens,
    wrong_tokens: &Counter,
    listener: &TcpListener,
) -> anyhow::Result<Arc<dyn Store>> {
    let first_reason = match open(&settings.store).await {
        Err(error @ OpenError::AwaitDatabase { .. }) => error.to_string(),
        opened => return Ok(opened.map_err(|error| cannot_open(&error))?),
    };
    let address = listener.local_addr().context("could not read the address of the listening socket")?;
    warn!("{first_reason}; trying again until the database accepts this host, and http://{address}/ready reports it");
    let (reason, reason_shown) = watch::channel(first_reason);
    let stopping = CancellationToken::new();
    // Stops serving even if the start is abandoned.
    let _stop_on_drop = stopping.clone().drop_guard();
    // A second handle of the same socket: the host listens on the first one afterwards.
    let socket = listener.as_fd().try_clone_to_owned().context("could not listen while the start waits")?;
    let listener = TcpListener::from_std(socket.into()).context("could not listen while the start waits")?;
    let guard = Guard::new(settings, tokens.clone(), wrong_tokens.clone());
    let routes = startup_routes(reason_shown, guard);
    let bounds = ConnectionBounds::new(CONNECTIONS_MAX);
    let serving = tokio::spawn(connections::serve(listener, routes, bounds, stopping.clone()));
    loop {
        tokio::time::sleep(RETRY_INTERVAL).await;
        match open(&settings.store).await {
            Err(error @ OpenError::AwaitDatabase { .. }) => {
                reason.send_replace(error.to_string());
            }
            opened => {
                stopping.cancel();
                // A client that reads slowly must not keep the host from starting.
                let _ = tokio::time::timeout(RETRY_INTERVAL, serving).await;
                let store = opened.map_err(|error| cannot_open(&error))?;
                info!("the store is open");
                return Ok(store);
            }
        }
    }
}
