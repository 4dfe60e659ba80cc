//! A broadcast as it is requested, and why it may be refused.

use std::collections::BTreeSet;
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::ids::{ParseIdError, PluginId};
use wharf_core::rollcall::Mode;
use wharf_core::shared_bytes::SharedBytes;
use wharf_core::topic::Topic;
use wharf_store::StoreError;

use crate::plugin_view::PluginView;
use crate::queue_bounds::QueueFull;

/// A live broadcast as a caller requests it.
#[derive(Clone, Debug)]
pub struct Broadcast {
    /// The topic, such as "document.saved".
    pub topic: String,
    /// The message for every subscriber.
    pub payload: SharedBytes,
    /// The time for the whole broadcast: subscribers that have not replied by then are stopped. At most
    /// `bounds::BROADCAST_TIMEOUT_MAX`.
    pub timeout: Duration,
    /// Number of replies that are wanted.
    pub mode: Mode,
}

/// Why a broadcast was not started. Each variant calls for something else from the caller.
#[derive(Debug, thiserror::Error)]
pub enum BroadcastError {
    /// The topic does not parse.
    #[error("topic: {0}")]
    BadTopic(ParseIdError),
    /// The payload is too large; that of a durable broadcast is stored once for each subscriber.
    #[error("payload is {bytes} bytes; the limit is {max}")]
    TooLarge {
        /// The size in bytes.
        bytes: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The timeout is too long.
    #[error("timeout is {asked:?}; the limit is {max:?}")]
    TooLong {
        /// The timeout of the request.
        asked: Duration,
        /// The limit.
        max: Duration,
    },
    /// The mode wants the first 0 replies.
    #[error("mode: expected the first 1 or more replies, got 0")]
    FirstOfNone,
    /// Transient: as many broadcasts of this depth are open as may be.
    #[error("too many open broadcasts on this host; the limit is {max}: try again when some have ended")]
    TooMany {
        /// The limit.
        max: u32,
    },
    /// The broadcast is nested too deeply.
    #[error("broadcast is nested too deeply; the limit is {max} broadcasts within each other")]
    TooDeep {
        /// The limit.
        max: u32,
    },
    /// The host is stopping, or an operator drains it.
    #[error("this host is draining and starts no more broadcasts")]
    Draining,
    /// Transient: plugins that may subscribe are still loading and would be missed.
    #[error("{}; nobody was called: try again in a moment", describe_loading(.plugins, *.open))]
    Loading {
        /// The plugins that are loading.
        plugins: Vec<PluginId>,
        /// The folder was scanned once, and the other nodes are known.
        open: bool,
    },
    /// Other nodes have subscribers for which this one cannot make jobs. Transient if the plugins come to this node as well,
    /// or if their nodes get this version; otherwise the broadcast must go to those nodes.
    #[error("{}; nobody was called: send it there, or try again later", describe_elsewhere(.0))]
    Elsewhere(
        /// Each plugin with the names of the nodes that have it.
        Vec<(PluginId, Vec<String>)>,
    ),
    /// Transient: as many jobs of a subscriber wait as may. No job was added.
    #[error(transparent)]
    QueueFull(#[from] QueueFull),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks what a request says of itself.
///
/// # Errors
///
/// Returns `TooLarge`, `TooLong` or `FirstOfNone`.
pub(crate) fn check(request: &Broadcast) -> Result<(), BroadcastError> {
    let bytes = request.payload.len() as u64;
    if bytes > bounds::PAYLOAD_BYTES_MAX {
        return Err(BroadcastError::TooLarge { bytes, max: bounds::PAYLOAD_BYTES_MAX });
    }
    if request.timeout > bounds::BROADCAST_TIMEOUT_MAX {
        return Err(BroadcastError::TooLong { asked: request.timeout, max: bounds::BROADCAST_TIMEOUT_MAX });
    }
    if request.mode == Mode::First(0) {
        return Err(BroadcastError::FirstOfNone);
    }
    Ok(())
}

/// Checks that this node knows its own plugins and those of the others well enough to miss no subscriber.
///
/// # Errors
///
/// Returns `Loading` while the host has just started.
pub(crate) fn check_open(view: &PluginView) -> Result<(), BroadcastError> {
    if view.catalog.is_open() && view.others.are_known() {
        return Ok(());
    }
    Err(BroadcastError::Loading { plugins: view.catalog.pending().keys().cloned().collect(), open: false })
}

/// Returns the plugins that may subscribe to the topic and are still loading, here or elsewhere, while no node has them
/// loaded.
pub(crate) fn loading_subscribers(view: &PluginView, topic: &Topic) -> Vec<PluginId> {
    let awaited = view.catalog.awaited().chain(view.others.awaited(view.now).map(|(_, awaited)| awaited));
    let subscribers = awaited.filter(|awaited| awaited.may_subscribe(topic)).map(|awaited| &awaited.plugin);
    let mut new: Vec<PluginId> = subscribers.cloned().collect();
    new.sort_unstable();
    new.dedup();
    new.retain(|plugin| view.catalog.plugin(plugin).is_none() && !view.others.has_plugin(plugin, view.now));
    new
}

fn describe_loading(plugins: &[PluginId], open: bool) -> String {
    match (open, plugins) {
        (false, []) => "this host has just started and does not know its plugins yet".to_owned(),
        (false, _) => format!("this host has just started, and {} is still loading", names(plugins)),
        (true, _) => format!("{} may subscribe and is still loading", names(plugins)),
    }
}

fn describe_elsewhere(plugins: &[(PluginId, Vec<String>)]) -> String {
    let ids: Vec<PluginId> = plugins.iter().map(|(plugin, _)| plugin.clone()).collect();
    let nodes: BTreeSet<&str> = plugins.iter().flat_map(|(_, nodes)| nodes).map(String::as_str).collect();
    let nodes: Vec<&str> = nodes.into_iter().collect();
    format!(
        "{} subscribes, but this host cannot make its job: it is loaded only on {}",
        names(&ids),
        nodes.join(" and ")
    )
}

/// Returns the first few names, and how many more there are.
fn names(plugins: &[PluginId]) -> String {
    const NAMED_MAX: usize = 10;
    let named: Vec<String> = plugins.iter().take(NAMED_MAX).map(|plugin| format!("`{plugin}`")).collect();
    match plugins.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
