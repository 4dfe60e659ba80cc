//! Room in the host's budget of memory for what clients send and receive.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use wharf_core::budget::MemoryUse;
use wharf_engine::{Budget, Reservation};

use super::problem::{Kind, Problem};

/// The longest time for which a request waits for room.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes for which no room is held when they are sent: there are not more of such parts than connections.
const SMALL_BYTES_MAX: usize = 16 * 1024;

/// Jobs that are read whole at the same time, to be shown or to be sent: each may have the largest payload and result, and it is
/// known only afterwards how large they are.
static WHOLE_JOBS: Semaphore = Semaphore::const_new(4);

/// A budget of fewer bytes has half as many jobs read at the same time.
const SMALL_BUDGET: u64 = 1 << 30;

/// Waits until a job may be read whole. It may be read as long as the result lives.
pub(crate) async fn to_read_a_job(budget: &Budget) -> Option<SemaphorePermit<'static>> {
    let places = if budget.total() < SMALL_BUDGET { 2 } else { 1 };
    // It is never closed.
    WHOLE_JOBS.acquire_many(places).await.ok()
}

/// Durable broadcasts that are read at the same time, each with results of as many bytes as one job may have. They have places of
/// their own, since each keeps its place until there is room to send it.
static BROADCASTS: Semaphore = Semaphore::const_new(2);

/// Waits until a durable broadcast may be read with its results. It may be read as long as the result lives.
pub(crate) async fn to_read_a_broadcast() -> Option<SemaphorePermit<'static>> {
    BROADCASTS.acquire().await.ok()
}

/// The bytes that the body of one request takes, with what is made of it, until this is dropped.
pub(crate) struct BodyMemory {
    budget: Budget,
    /// The number of copies of its bytes that are in memory at the same time.
    copies: u64,
    /// The bytes of the body for which there is room.
    bytes: usize,
    held: Option<Reservation>,
}

impl BodyMemory {
    /// Room for a body whose bytes are in memory so often at the same time. Nothing is reserved yet.
    pub(crate) fn new(budget: &Budget, copies: u64) -> BodyMemory {
        BodyMemory { budget: budget.clone(), copies, bytes: 0, held: None }
    }

    /// Waits until there is room for so many bytes of the body.
    ///
    /// # Errors
    /// If there is none for some seconds.
    pub(crate) async fn hold(&mut self, bytes: usize) -> Result<(), Problem> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let more = (more as u64).saturating_mul(self.copies);
        let Some(reserved) = self.budget.reserve_within(MemoryUse::Requests, more, WAIT_MAX).await else {
            return Err(no_memory("nothing was enqueued; send the request again"));
        };
        self.bytes = bytes;
        match &mut self.held {
            Some(held) => held.join(reserved),
            held => *held = Some(reserved),
        }
        Ok(())
    }
}

impl BodyMemory {
    /// Takes out the room of a large body, to be kept until the store has it. That of a small one stays here until the request
    /// is answered: few bytes wait in a store for a client that has gone.
    pub(crate) fn take_for_store(&mut self) -> Option<Reservation> {
        self.held.take_if(|_| self.bytes >= SMALL_BYTES_MAX)
    }
}

/// Returns the bytes with room that is held until their last part is sent; `None` if there is no room now. Few bytes need none.
pub(crate) fn with_room_now(budget: &Budget, bytes: &Bytes) -> Option<Bytes> {
    if bytes.len() < SMALL_BYTES_MAX {
        return Some(bytes.clone());
    }
    let room = budget.try_reserve(MemoryUse::Readers, bytes.len() as u64)?;
    Some(held_for(bytes.clone(), Some(room)))
}

/// Waits until there is room for so many bytes that a client receives.
///
/// # Errors
/// If there is none for some seconds.
pub(crate) async fn room_to_send(budget: &Budget, bytes: usize) -> Result<Reservation, Problem> {
    let room = budget.reserve_within(MemoryUse::Readers, bytes as u64, WAIT_MAX).await;
    room.ok_or_else(|| no_memory("other clients are slow to receive what they asked for; try again"))
}

/// Returns the response of a document, with room that is held until it is sent.
///
/// # Errors
/// If there is none for some seconds.
pub(crate) async fn json(budget: &Budget, document: &impl Serialize) -> Result<Response, Problem> {
    let text = serde_json::to_vec(document).map_err(|error| Problem::new(Kind::INTERNAL, error.to_string()))?;
    let room = if text.len() < SMALL_BYTES_MAX { None } else { Some(room_to_send(budget, text.len()).await?) };
    Ok(([(header::CONTENT_TYPE, "application/json")], held_for(text.into(), room)).into_response())
}

/// Keeps room until these bytes are sent, and gives back what they do not need.
pub(crate) fn held_for(bytes: Bytes, memory: Option<Reservation>) -> Bytes {
    match memory {
        Some(mut memory) => {
            memory.shrink_to(bytes.len() as u64);
            Bytes::from_owner(Kept { bytes, _memory: memory })
        }
        None => bytes,
    }
}

/// Waits until there is room to make an event that takes so many bytes meanwhile. A small one takes none.
pub(crate) async fn room_to_make(budget: &Budget, bytes: usize) -> Option<Reservation> {
    if bytes < SMALL_BYTES_MAX {
        return None;
    }
    Some(budget.reserve_patiently(MemoryUse::Readers, bytes as u64).await)
}

/// Bytes with their room.
struct Kept {
    bytes: Bytes,
    _memory: Reservation,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Waits until there is room for an event that a client receives, and keeps it until the event is sent. A small event takes
/// none: there are not more of these than connections.
pub(crate) async fn with_room(budget: &Budget, event: Bytes) -> Bytes {
    if event.len() < SMALL_BYTES_MAX {
        return event;
    }
    let memory = budget.reserve_patiently(MemoryUse::Readers, event.len() as u64).await;
    Bytes::from_owner(Kept { bytes: event, _memory: memory })
}

fn no_memory(advice: &str) -> Problem {
    let seconds = WAIT_MAX.as_secs();
    Problem::new(Kind::NO_MEMORY, format!("the host's budget of memory was full for {seconds} s; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(budget: &Budget, of: MemoryUse) -> u64 {
        budget.usage().used.iter().find(|(each, _)| *each == of).unwrap().1
    }

    #[tokio::test]
    async fn a_body_holds_its_copies_and_no_byte_twice() {
        let budget = Budget::new(1 << 30);
        let mut memory = BodyMemory::new(&budget, 3);
        for bytes in [100, 100, 40, 1000] {
            memory.hold(bytes).await.unwrap();
        }
        assert_eq!(used(&budget, MemoryUse::Requests), 3000);
        drop(memory);
        assert_eq!(used(&budget, MemoryUse::Requests), 0);
    }

    #[tokio::test]
    async fn what_is_sent_keeps_its_room_until_its_last_part_is_gone() {
        let budget = Budget::new(1 << 30);
        let result = with_room_now(&budget, &Bytes::from(vec![0; 100_000])).unwrap();
        let part = result.slice(9_000..);
        drop(result);
        let event = with_room(&budget, Bytes::from(vec![0; 50_000])).await;
        assert_eq!(used(&budget, MemoryUse::Readers), 150_000);
        let all = budget.try_reserve(MemoryUse::Readers, budget.free(MemoryUse::Readers)).unwrap();
        assert!(with_room_now(&budget, &Bytes::from(vec![0; 100_000])).is_none());
        assert!(with_room_now(&budget, &Bytes::from(vec![0; 100])).is_some(), "few bytes need none");
        drop((part, event, all));
        assert_eq!(used(&budget, MemoryUse::Readers), 0);
        assert_eq!(room_to_send(&budget, 100_000).await.unwrap().bytes(), 100_000);
    }
}
