//! Room in the host's budget of memory for what clients send and receive.

use std::time::Duration;

use axum::body::Bytes;
use wharf_core::bounds;
use wharf_core::budget::MemoryUse;
use wharf_engine::{Budget, Reservation};

use super::problem::{Kind, Problem};

/// The longest time for which a request waits for room.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// The most that reading one job takes: its payload and its result.
const JOB_BYTES_MAX: u64 = bounds::PAYLOAD_BYTES_MAX + bounds::OUTPUT_BYTES_MAX;

/// The bytes that the body of one request takes, with what is made of it, until this is dropped.
pub(crate) struct BodyMemory {
    budget: Budget,
    /// How often its bytes are in memory at the same time.
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

/// Room for reading a job from the store, and for as much of it as is sent.
pub(crate) struct ReadMemory(Reservation);

impl ReadMemory {
    /// Waits until there is room for one job, however large it is.
    ///
    /// # Errors
    /// If there is none for some seconds.
    pub(crate) async fn for_job(budget: &Budget) -> Result<ReadMemory, Problem> {
        let reserved = budget.reserve_within(MemoryUse::Readers, JOB_BYTES_MAX, WAIT_MAX).await;
        reserved.map(ReadMemory).ok_or_else(|| no_memory("other clients are slow to receive what they asked for; try again"))
    }

    /// Keeps room for these bytes until the last part of them is sent, and gives the rest back.
    pub(crate) fn keep_for(mut self, bytes: Bytes) -> Bytes {
        self.0.shrink_to(bytes.len() as u64);
        Bytes::from_owner(Kept { bytes, _memory: self.0 })
    }
}

/// Keeps room until these bytes are sent.
pub(crate) fn held_for(bytes: Bytes, memory: Option<Reservation>) -> Bytes {
    match memory {
        Some(_memory) => Bytes::from_owner(Kept { bytes, _memory }),
        None => bytes,
    }
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
    const SMALL_BYTES_MAX: usize = 4096;
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
        let memory = ReadMemory::for_job(&budget).await.unwrap();
        let result = memory.keep_for(Bytes::from(vec![0; 10_000]));
        let part = result.slice(9_000..);
        drop(result);
        let event = with_room(&budget, Bytes::from(vec![0; 5_000])).await;
        assert_eq!(used(&budget, MemoryUse::Readers), 15_000);
        drop((part, event));
        assert_eq!(used(&budget, MemoryUse::Readers), 0);
    }
}
