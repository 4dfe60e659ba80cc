//! Room in the host's budget of memory for payloads while they are parsed: their values may take many times their bytes.

use std::time::Duration;

use wharf_core::budget::MemoryUse;
use wharf_core::ids::TaskName;
use wharf_engine::spec::payload::parsed_bytes;
use wharf_engine::{Budget, Reservation};

use crate::other_nodes::TaskElsewhere;
use crate::plugin_view::PluginView;

/// Payloads below this size take little memory when they are parsed, and few are parsed at the same time.
const SMALL_BYTES_MAX: usize = 64 * 1024;
/// The longest time for which a client's request waits for room.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Why a payload was not parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Transient: the host's budget of memory is full.
    #[error("the host's budget of memory was full for {} s", WAIT_MAX.as_secs())]
    Now,
    /// The budget never has so much for a payload.
    #[error(
        "a payload may take {bytes} bytes when it is parsed for its task's schema; the limit of this host is {max}, a part of \
         its `memory.budget`: put fewer values into one payload"
    )]
    Ever {
        /// The bytes that it may take.
        bytes: u64,
        /// The most that it may.
        max: u64,
    },
}

/// Returns true if one of these payloads, each with its task, is parsed and may take much memory.
pub(crate) fn takes_room<'r>(view: &PluginView, payloads: impl Iterator<Item = (&'r str, &'r [u8])>) -> bool {
    parsed(view, payloads).next().is_some()
}

/// Returns how many bytes the largest of these payloads may take when it is parsed: they are parsed one after the other.
pub(crate) fn room_needed<'r>(view: &PluginView, payloads: impl Iterator<Item = (&'r str, &'r [u8])>) -> u64 {
    parsed(view, payloads).map(parsed_bytes).max().unwrap_or(0)
}

/// Returns those of the payloads that are large and parsed.
fn parsed<'r>(
    view: &PluginView,
    payloads: impl Iterator<Item = (&'r str, &'r [u8])>,
) -> impl Iterator<Item = &'r [u8]> {
    let large = payloads.filter(|(_, payload)| payload.len() > SMALL_BYTES_MAX);
    large.filter(|(task, _)| has_schema(view, task)).map(|(_, payload)| payload)
}

fn has_schema(view: &PluginView, task: &str) -> bool {
    let Ok(name) = task.parse::<TaskName>() else { return false };
    match view.catalog.task(&name) {
        Some((_, task)) => task.schema.is_some(),
        None => match view.others.task(&name, view.now) {
            TaskElsewhere::Known(task) => task.schema().is_ok_and(|schema| schema.is_some()),
            TaskElsewhere::Unknown(_) | TaskElsewhere::Nowhere => false,
        },
    }
}

/// Waits for room for a client's payload.
///
/// # Errors
/// [`NoRoom`] if there is none for some seconds, or never.
pub(crate) async fn for_client(budget: &Budget, bytes: u64) -> Result<Reservation, NoRoom> {
    check(budget, bytes)?;
    budget.reserve_within(MemoryUse::Parsing, bytes, WAIT_MAX).await.ok_or(NoRoom::Now)
}

/// Waits for room for a guest's payload. Attempts may be released for it: they may have all the room.
///
/// # Errors
/// [`NoRoom::Ever`] if there never is so much.
pub(crate) async fn for_guest(budget: &Budget, bytes: u64) -> Result<Reservation, NoRoom> {
    check(budget, bytes)?;
    Ok(budget.reserve(MemoryUse::Parsing, bytes).await)
}

fn check(budget: &Budget, bytes: u64) -> Result<(), NoRoom> {
    let max = budget.most(MemoryUse::Parsing);
    if bytes > max { Err(NoRoom::Ever { bytes, max }) } else { Ok(()) }
}
