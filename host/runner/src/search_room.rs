//! Room in the host's budget of memory for searches that read the payloads of jobs.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use wharf_core::bounds;
use wharf_core::budget::MemoryUse;
use wharf_core::find::JobQuery;
use wharf_engine::{Budget, Reservation};
use wharf_store::StoreError;

/// Bytes that a search for a part of payloads has in memory at once: a payload, and what its store received it in.
const SEARCH_BYTES: u64 = 2 * bounds::PAYLOAD_BYTES_MAX;
/// The longest time for which a step of a bulk operation waits for room: the steps of other operations wait behind it.
const STEP_WAIT_MAX: Duration = Duration::from_secs(1);
/// The longest time for which a search waits for room.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Room for a search, which its request carries. `None` if the search needs none.
pub(crate) type SearchRoom = Option<Arc<dyn Any + Send + Sync>>;

/// Waits until there is room to search for the jobs of a query, and keeps it until the last clone of the result is dropped. A query that
/// reads no payloads needs none.
///
/// # Errors
///
/// Returns [`StoreError::Busy`] if there is no room for some seconds.
pub(crate) async fn room_to_search(budget: &Budget, query: &JobQuery) -> Result<SearchRoom, StoreError> {
    Ok(room_within(budget, query, WAIT_MAX).await?.map(|room| Arc::new(room) as _))
}

/// Waits a short time for room for the search of a step of a bulk operation.
///
/// # Errors
///
/// Returns [`StoreError::Busy`] if there is no room.
pub(crate) async fn room_for_step(budget: &Budget, query: &JobQuery) -> Result<SearchRoom, StoreError> {
    Ok(room_within(budget, query, STEP_WAIT_MAX).await?.map(|room| Arc::new(room) as _))
}

async fn room_within(budget: &Budget, query: &JobQuery, max: Duration) -> Result<Option<Reservation>, StoreError> {
    if !query.needs_payload() {
        return Ok(None);
    }
    match budget.reserve_within(MemoryUse::Readers, SEARCH_BYTES, max).await {
        Some(room) => Ok(Some(room)),
        None => Err(StoreError::Busy(format!(
            "the host's budget of memory was full for {} s, and this search reads payloads; try again, or leave out the \
             conditions on payloads",
            max.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use wharf_core::time::Timestamp;

    use super::*;

    #[tokio::test]
    async fn only_a_query_that_reads_payloads_takes_room_and_gives_it_back() {
        let budget = Budget::new(1 << 30);
        let parse = |text: &str| JobQuery::parse(text, Timestamp::default()).unwrap();
        assert!(room_to_search(&budget, &parse("state:failed")).await.unwrap().is_none());
        let room = room_to_search(&budget, &parse("payload./tenant=42")).await.unwrap().unwrap();
        let free = budget.free(MemoryUse::Readers);
        // The store's own task keeps the room when the caller has gone away.
        let of_the_store = room.clone();
        drop(room);
        assert_eq!(budget.free(MemoryUse::Readers), free);
        drop(of_the_store);
        assert_eq!(budget.free(MemoryUse::Readers), free + SEARCH_BYTES);
    }

    #[tokio::test]
    async fn a_search_without_room_ends_with_an_error_that_says_so() {
        let budget = Budget::new(1 << 30);
        let _all = budget.try_reserve(MemoryUse::Readers, budget.free(MemoryUse::Readers)).unwrap();
        let query = JobQuery::parse("payload./tenant=42", Timestamp::default()).unwrap();
        let Err(StoreError::Busy(text)) = room_within(&budget, &query, Duration::ZERO).await else {
            panic!("there was room")
        };
        assert!(text.contains("conditions on payloads"), "{text}");
    }
}
