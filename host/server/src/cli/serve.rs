//! `wharf serve`: builds the parts of a host, listens, waits for a signal, drains.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use wharf_runner::{Host, LiveSettings, Parts, StartError};
use wharf_store::without_password;

use super::log::{Log, LogLevel};
use super::log_notices::log_notice;
use super::reload::{Reload, Targets};
use crate::access::Tokens;
use crate::cli_error::{CliError, ExitStatus, exit_and_text};
use crate::config::Settings;
use crate::dashboard::{self, Dashboard, Keys, Pulse};
use crate::file_limit::{file_limit, raise_file_limit};
use crate::http::{AppState, ConnectionBounds, Guard, HeldConfig, connections, routes};
use crate::in_process_engine::{compile_in_child, engine, runtime};
use crate::metrics::Metrics;
use crate::open_store::open_store_when_available;
use crate::service_manager::ServiceManager;
use crate::signals::{End, Signals};

/// Connections that are still open when everything else has stopped are closed after this time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// The interval at which the host is checked for a loop that has died.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The number of connections that are served at once; `http/connections.rs` says what happens to more.
const CONNECTIONS_MAX: u64 = 4096;

/// The parts of a host that are ready before it starts.
pub(crate) struct Start {
    pub(crate) live: LiveSettings,
    pub(crate) tokens: Tokens,
    pub(crate) config: HeldConfig,
    pub(crate) reload: Reload,
}

/// Runs a host until it is asked to stop.
pub(crate) fn serve(settings: &Settings, with: Start) -> anyhow::Result<ExitStatus> {
    let metrics = Arc::new(Metrics::new());
    let (log, level) = Log::start(settings, "starting", metrics.host_log_lines_dropped.clone())?;
    raise_file_limit();
    let runtime = runtime()?;
    let ended = runtime.block_on(run(settings, with, metrics, &log, level));
    // An abandoned start may still be busy with the store or with a plugin.
    runtime.shutdown_timeout(CLOSE_TIMEOUT);
    // Through the log, like everything else: it never waits for a reader that has stopped.
    let (exit, text) = exit_and_text(ended);
    text.iter().for_each(|text| log.line(text));
    log.close();
    Ok(exit)
}

async fn run(
    settings: &Settings,
    Start { live, tokens, config, reload }: Start,
    metrics: Arc<Metrics>,
    log: &Log,
    level: LogLevel,
) -> anyhow::Result<ExitStatus> {
    let mut signals = Signals::new().context("could not listen for signals")?;
    let listener = listen(settings.listen).await?;
    let service = ServiceManager::of_environment();
    // From here on: the start may wait long for a database, and answers to tokens meanwhile.
    let (to_reload, started) = watch::channel(None);
    let targets = Targets {
        tokens: tokens.clone(),
        log: level,
        config: config.clone(),
        metrics: Arc::clone(&metrics),
        host: started,
        service: service.clone(),
    };
    let _reloading = AbortOnDropHandle::new(tokio::spawn(reload.run(signals.reload(), targets)));
    let host = tokio::select! {
        host = start(settings, live, &tokens, &listener, Arc::clone(&metrics), log) => host?,
        _ = signals.end() => {
            service.stopping();
            info!("stopped before the start was complete");
            service.told().await;
            return Ok(ExitStatus::Done);
        }
    };

    to_reload.send_replace(Some(host.clone()));
    let address = listener.local_addr().context("could not read the address of the listening socket")?;
    info!(
        "wharf {} listens on http://{address}, plugins in {}, jobs in {}",
        env!("CARGO_PKG_VERSION"),
        settings.plugins_dir.display(),
        without_password(&settings.store)
    );
    let stopping = CancellationToken::new();
    let guard = Arc::new(Guard::new(settings, tokens, metrics.wrong_tokens.clone()));
    let state = AppState::new(host.clone(), metrics, stopping.clone(), settings, config);
    let bounds = ConnectionBounds::new(connections_max());
    let pulse = Arc::new(Pulse::default());
    let keys = Keys::draw(address.port()).context("could not draw the secret of the dashboard")?;
    let pages = Dashboard::new(state.clone(), Arc::clone(&guard), keys, Arc::clone(&pulse));
    let host_seen = host.clone();
    let _sampling = AbortOnDropHandle::new(tokio::spawn(async move { pulse.run(host_seen).await }));
    let page_routes = dashboard::routes(pages.clone());
    let unknown_page = |request| async move { dashboard::unknown_page(&pages, request).await };
    let routes = routes(state, guard, page_routes, unknown_page);
    let serving = tokio::spawn(connections::serve(listener, routes, bounds, stopping.clone()));
    let _watching = AbortOnDropHandle::new(tokio::spawn(service.clone().watch(host.clone())));

    let (died, end) = tokio::select! {
        end = signals.end() => (false, end),
        // Nothing is left that could record how the running attempts end.
        () = death(&host) => (true, End::AtOnce),
    };
    service.stopping();
    let drained = end == End::AfterDraining
        && tokio::select! {
            () = host.drain(settings.drain_timeout) => true,
            () = signals.end_at_once() => false,
        };
    if !drained {
        warn!("stopping at once: running jobs are returned to the queue and tried again");
        host.stop_now().await;
    }
    stopping.cancel();
    // A client that reads slowly must not keep the host from ending.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, serving).await;
    service.told().await;
    if died {
        let text = "the host stopped because a bug ended the loop that runs jobs; the log has the details; start it again: \
                    jobs that ran are tried again when their leases expire";
        return Err(CliError::new(ExitStatus::Machine, text).into());
    }
    Ok(ExitStatus::Done)
}

/// Opens the store and creates the engine, both off this thread: a slow disk must not delay the handling of signals.
async fn start(
    settings: &Settings,
    live: LiveSettings,
    tokens: &Tokens,
    listener: &TcpListener,
    metrics: Arc<Metrics>,
    log: &Log,
) -> anyhow::Result<Host> {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let store = open_store_when_available(settings, tokens, &metrics.wrong_tokens, listener).await?;
    let engine_settings = settings.engine_settings(compile_in_child()?);
    let engine = spawn_blocking(move || engine(engine_settings)).await.context("could not create the engine")??;
    Ok(host(settings, live, port, Parts { store, engine }, metrics, log.clone()).await?)
}

/// Waits until the loop that runs jobs has ended, although it was not asked to.
async fn death(host: &Host) {
    while host.health().alive {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => {
                "another program, perhaps another host, listens there; stop it, or choose another address with --listen"
            }
            ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose a higher one with --listen",
            ErrorKind::AddrNotAvailable => "this machine does not have that address; choose another with --listen",
            _ => "choose another address with --listen",
        };
        CliError::new(ExitStatus::CannotStart, format!("could not listen on {address}: {error}; {advice}"))
    })
}

async fn host(
    settings: &Settings,
    live: LiveSettings,
    port: u16,
    parts: Parts,
    metrics: Arc<Metrics>,
    log: Log,
) -> Result<Host, CliError> {
    let cannot_start = |text: String| CliError::new(ExitStatus::CannotStart, text);
    let dir = &settings.plugins_dir;
    // Only the default folder is created: a named folder that does not exist is more likely a typing error.
    if settings.plugins_dir_is_default {
        fs::create_dir_all(dir)
            .map_err(|error| cannot_start(format!("could not create the plugin folder {}: {error}", dir.display())))?;
    }
    let settings = wharf_runner::Settings { live, ..settings.host_settings(node_name(port), dir.clone()) };
    let on_notice = move |notice: &wharf_runner::Notice| {
        metrics.record(notice);
        log_notice(notice, &log);
    };
    Host::start(parts, settings, on_notice).await.map_err(|error| match error {
        StartError::Folder { .. } => cannot_start(format!("{error}; create it, or name another with --plugins-dir")),
        StartError::Settings(_) | StartError::Store(_) => cannot_start(error.to_string()),
    })
}

/// Returns the name under which users know this host: the name of the machine, and the port.
fn node_name(port: u16) -> String {
    let system = rustix::system::uname();
    let machine = system.nodename().to_string_lossy();
    format!("{}:{port}", if machine.is_empty() { "localhost" } else { &machine })
}

/// Returns the number of connections that are served at once: no more than half of the descriptors, because plugins and
/// the store need some as well.
fn connections_max() -> usize {
    file_limit().map_or(CONNECTIONS_MAX, |files| CONNECTIONS_MAX.min(files / 2)).max(1) as usize
}
