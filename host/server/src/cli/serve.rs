//! `wharf serve`: builds the parts, listens, waits for a signal, drains.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wharf_core::bounds;
use wharf_core::ids::NodeId;
use wharf_engine::Engine;
use wharf_runner::{Host, Parts, StartError};
use wharf_store::without_password;

use super::cli_error::{Ending, Exit, explained};
use super::in_process::{compile_in_child, runtime};
use super::log::Log;
use super::log_notices::narrate;
use super::open_store::store_in_time;
use crate::config::Settings;
use crate::http::{Face, Guard, connections, routes};
use crate::metrics::Metrics;
use crate::signals::{End, Signals};

/// Connections that are still open when everything has stopped get this long.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);
/// Whether the host still lives is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// More connections than this wait until one ends.
const CONNECTIONS_MAX: u64 = 4096;

/// Runs a host until it is asked to stop.
pub(crate) fn serve(settings: &Settings) -> anyhow::Result<Exit> {
    let metrics = Arc::new(Metrics::new());
    let log = Log::start(settings, "starting", metrics.host_log_lines_dropped.clone())?;
    raise_file_limit();
    let runtime = runtime()?;
    let ended = runtime.block_on(run(settings, metrics, &log));
    // A start that was given up may still be at work on the store or on a plugin.
    runtime.shutdown_timeout(CLOSE_PATIENCE);
    // Said like all the rest, without waiting for a reader that has stopped.
    let (exit, text) = explained(ended);
    text.iter().for_each(|text| log.say(text));
    log.close();
    Ok(exit)
}

async fn run(settings: &Settings, metrics: Arc<Metrics>, log: &Log) -> anyhow::Result<Exit> {
    let mut signals = Signals::new().context("could not listen for signals")?;
    let listener = listen(settings.listen).await?;
    let host = tokio::select! {
        host = start(settings, &listener, Arc::clone(&metrics), log) => host?,
        _ = signals.end() => {
            info!("stopped before the start was complete");
            return Ok(Exit::Done);
        }
    };

    let address = listener.local_addr().context("could not read the address that was listened on")?;
    info!(
        "wharf {} listens on http://{address}, plugins in {}, jobs in {}",
        env!("CARGO_PKG_VERSION"),
        settings.plugins_dir.display(),
        without_password(&settings.store)
    );
    let stopping = CancellationToken::new();
    let face = Arc::new(Face { host: host.clone(), metrics, stopping: stopping.clone() });
    let guard = Guard::new(settings.token.clone(), settings.listen.ip().is_loopback());
    let serving = tokio::spawn(connections::serve(listener, routes(face, guard), connections_max(), stopping.clone()));

    let (died, end) = tokio::select! {
        end = signals.end() => (false, end),
        // What runs has nobody any more who would write down how it ended.
        () = death(&host) => (true, End::AtOnce),
    };
    let drained = end == End::WithPatience
        && tokio::select! {
            () = host.drain(settings.drain_patience) => true,
            () = signals.hurry() => false,
        };
    if !drained {
        warn!("stopping at once: what runs is given back and tried again");
        host.stop_now().await;
    }
    stopping.cancel();
    // A client that reads slowly does not keep the host from ending.
    let _ = tokio::time::timeout(CLOSE_PATIENCE, serving).await;
    if died {
        let text = "the host has stopped: a bug has ended the loop that runs jobs; its log says which; start it again, what ran is tried again when its leases have run out";
        return Err(Ending::new(Exit::Machine, text).into());
    }
    Ok(Exit::Done)
}

/// Opens the store and makes the engine on threads of their own, where a slow disk does not keep signals from being heard.
async fn start(settings: &Settings, listener: &TcpListener, metrics: Arc<Metrics>, log: &Log) -> anyhow::Result<Host> {
    let port = listener.local_addr().map_or(0, |address| address.port());
    let store = store_in_time(settings, listener).await?;
    let wanted = engine_settings(settings)?;
    let engine = spawn_blocking(move || engine(wanted)).await.context("the engine could not be made")??;
    Ok(host(settings, port, Parts { store, engine }, metrics, log.clone()).await?)
}

/// Returns when the loop that runs jobs has ended though nobody asked it to.
async fn death(host: &Host) {
    while host.health().alive {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Ending> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::AddrInUse => {
                "another program listens there, perhaps another host; stop it, or choose another address with --listen"
            }
            ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose a higher one with --listen",
            ErrorKind::AddrNotAvailable => "this machine does not have that address; choose another with --listen",
            _ => "choose another address with --listen",
        };
        Ending::new(Exit::CannotStart, format!("could not listen on {address}: {error}; {advice}"))
    })
}

fn engine_settings(settings: &Settings) -> anyhow::Result<wharf_engine::Settings> {
    Ok(wharf_engine::Settings {
        attempts: settings.attempts_at_once,
        broadcast_calls: settings.broadcast_calls,
        guest_threads: settings.guest_threads as usize,
        cache_dir: settings.cache_dir.clone(),
        compile: compile_in_child()?,
    })
}

pub(crate) fn engine(settings: wharf_engine::Settings) -> Result<Arc<Engine>, Ending> {
    Engine::new(settings).map_err(|error| Ending::new(Exit::CannotStart, error.to_string()))
}

async fn host(settings: &Settings, port: u16, parts: Parts, metrics: Arc<Metrics>, log: Log) -> Result<Host, Ending> {
    let cannot = |text: String| Ending::new(Exit::CannotStart, text);
    let dir = &settings.plugins_dir;
    // Only the default folder is made: one that was named and is not there is more likely a slip.
    if settings.plugins_dir_is_default {
        fs::create_dir_all(dir)
            .map_err(|error| cannot(format!("could not make the plugin folder {}: {error}", dir.display())))?;
    }
    let settings = host_settings(settings, node_name(port), dir.clone());
    let tell = move |notice: &wharf_runner::Notice| {
        metrics.hear(notice);
        narrate(notice, &log);
    };
    Host::start(parts, settings, tell).await.map_err(|error| match error {
        StartError::Folder { .. } => cannot(format!("{error}; make it, or name another with --plugins-dir")),
        StartError::Settings(_) | StartError::Store(_) => cannot(error.to_string()),
    })
}

/// What a host needs to know of the settings.
pub(crate) fn host_settings(settings: &Settings, name: String, plugins_dir: PathBuf) -> wharf_runner::Settings {
    wharf_runner::Settings {
        node: NodeId(fastrand::u64(1..)),
        name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        plugins_dir,
        attempts: settings.attempts_at_once,
        broadcasts: settings.broadcasts_at_once,
        lease: settings.lease,
        lease_margin: settings.lease_margin,
        write_timeout: bounds::WRITE_PATIENCE,
        cancel_grace: settings.cancel_grace,
        upkeep_interval: settings.upkeep_interval,
        keep_finished: settings.keep_finished,
        rescan: settings.plugins_rescan,
        plugins: settings.plugins.clone(),
    }
}

/// What people tell this host from others by: the machine and the port.
fn node_name(port: u16) -> String {
    let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = machine.trim();
    format!("{}:{port}", if machine.is_empty() { "localhost" } else { machine })
}

/// Every follower, every sandbox with a folder and every request of a plugin holds a descriptor.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the number of open files stays as it is");
    }
}

/// Connections get no more than half of the descriptors: plugins and the store need some as well.
fn connections_max() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    files.map_or(CONNECTIONS_MAX, |files| CONNECTIONS_MAX.min(files / 2)).max(1) as usize
}
