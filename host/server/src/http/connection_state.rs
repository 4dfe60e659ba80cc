//! The phases of open connections, and which of them make room for others.
//!
//! A connection is busy from the end of a request's head until its response was handed to the system. At other times it waits for
//! a head, for as long as its client likes: where all places are taken, those that have waited longest are closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

/// Stands for the moment since which a connection waits, while it does not.
const BUSY: u64 = 0;
/// Stands for that moment once the connection was chosen to be closed.
const CLOSING: u64 = u64::MAX;
/// Number of connections that are closed at once at most, so that a flood of new ones does not search all the others for each.
const CLOSED_AT_ONCE: usize = 16;

/// The phase of one connection. Moments are microseconds since the host listens, from 1.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    epoch: Instant,
    waiting_since: AtomicU64,
    /// Moment of the first bytes of a head, or 0.
    head_since: AtomicU64,
    /// True until the body of the response is complete.
    responding: AtomicBool,
    closing: Notify,
}

impl ConnectionState {
    /// Starts as a connection that waits for its first head.
    pub(crate) fn new(epoch: Instant) -> ConnectionState {
        let state = ConnectionState {
            epoch,
            waiting_since: AtomicU64::new(BUSY),
            head_since: AtomicU64::new(0),
            responding: AtomicBool::new(false),
            closing: Notify::new(),
        };
        state.waiting_since.store(state.now(), Ordering::SeqCst);
        state
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(CLOSING - 1).clamp(1, CLOSING - 1)
    }

    fn is_waiting(&self) -> bool {
        !matches!(self.waiting_since.load(Ordering::SeqCst), BUSY | CLOSING)
    }

    /// Notes that bytes arrived.
    pub(crate) fn received(&self) {
        if self.is_waiting() && self.head_since.load(Ordering::SeqCst) == 0 {
            self.head_since.store(self.now(), Ordering::SeqCst);
        }
    }

    /// Returns when the head began that has not arrived as a whole.
    pub(crate) fn head_since(&self) -> Option<Instant> {
        let since = self.head_since.load(Ordering::SeqCst);
        (since > 0 && self.is_waiting()).then(|| self.epoch + Duration::from_micros(since))
    }

    /// Begins a request. Returns false if the connection was chosen to be closed: the request is not served then.
    #[must_use]
    pub(crate) fn begin(&self) -> bool {
        self.head_since.store(0, Ordering::SeqCst);
        self.responding.store(true, Ordering::SeqCst);
        let began = self
            .waiting_since
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |since| (since != CLOSING).then_some(BUSY));
        began.is_ok()
    }

    /// Notes that the body of the response is complete.
    pub(crate) fn responded(&self) {
        self.responding.store(false, Ordering::SeqCst);
    }

    /// Notes that everything that was written so far was handed to the system.
    pub(crate) fn flushed(&self) {
        if !self.responding.load(Ordering::SeqCst) {
            let _ = self.waiting_since.compare_exchange(BUSY, self.now(), Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Waits until the connection is chosen to be closed.
    pub(crate) async fn closing(&self) {
        self.closing.notified().await;
    }
}

/// The open connections of one kind of place.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections {
    /// Locked when a connection opens, closes or has to make room; never for a request.
    open: Mutex<HashMap<usize, Arc<ConnectionState>>>,
}

impl OpenConnections {
    /// Adds a connection until what is returned is dropped.
    pub(crate) fn add(self: &Arc<Self>, state: &Arc<ConnectionState>) -> Registered {
        let key = Arc::as_ptr(state) as usize;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(state));
        Registered { all: Arc::clone(self), key }
    }

    /// Closes some of the connections that have waited longest for a head. Returns false if none waits.
    pub(crate) fn make_room(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |state: &Arc<ConnectionState>| state.waiting_since.load(Ordering::SeqCst);
        let mut waiting: Vec<_> = open.values().map(|state| (since(state), state)).collect();
        waiting.retain(|(since, _)| !matches!(*since, BUSY | CLOSING));
        // A host of few places keeps most of them.
        let count = CLOSED_AT_ONCE.min(waiting.len().div_ceil(8));
        if waiting.len() > count {
            waiting.select_nth_unstable_by_key(count, |(since, _)| *since);
            waiting.truncate(count);
        }
        let mut closed = false;
        for (since, state) in waiting {
            // Where a request has just begun, the connection stays.
            if state.waiting_since.compare_exchange(since, CLOSING, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                state.closing.notify_one();
                closed = true;
            }
        }
        closed
    }
}

/// Membership of one connection in [`OpenConnections`], until this is dropped.
#[derive(Debug)]
pub(crate) struct Registered {
    all: Arc<OpenConnections>,
    key: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.all.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(all: &Arc<OpenConnections>, epoch: Instant) -> (Arc<ConnectionState>, Registered) {
        let state = Arc::new(ConnectionState::new(epoch));
        let registered = all.add(&state);
        (state, registered)
    }

    #[test]
    fn those_that_have_waited_longest_make_room_and_none_that_is_busy() {
        let (all, epoch) = (Arc::new(OpenConnections::default()), Instant::now());
        let (busy, _busy) = add(&all, epoch);
        assert!(busy.begin());
        let waiting: Vec<_> = (0..CLOSED_AT_ONCE * 8).map(|_| add(&all, epoch)).collect();
        let (oldest, others) = waiting.split_at(CLOSED_AT_ONCE);
        // Moments may be equal, but none is before the one of an older connection.
        others.iter().for_each(|(state, _)| _ = state.waiting_since.fetch_add(1, Ordering::SeqCst));
        assert!(all.make_room());
        assert!(oldest.iter().all(|(state, _)| !state.begin()), "they serve no request any more");
        assert!(others.iter().all(|(state, _)| state.begin()));
        assert!(!all.make_room(), "all that are left are busy");
        busy.flushed();
        assert!(!all.make_room(), "a part of a response was written");
        busy.responded();
        assert!(!all.make_room(), "the rest of the response was not");
        busy.flushed();
        assert!(all.make_room());
    }

    #[test]
    fn a_connection_that_is_gone_is_forgotten() {
        let all = Arc::new(OpenConnections::default());
        drop(add(&all, Instant::now()));
        assert!(!all.make_room() && all.open.lock().unwrap().is_empty());
    }

    #[test]
    fn a_head_begins_with_its_first_bytes_and_ends_with_the_request() {
        let state = ConnectionState::new(Instant::now());
        assert_eq!(state.head_since(), None);
        state.received();
        let began = state.head_since();
        state.received();
        assert!(began.is_some() && state.head_since() == began, "later bytes do not extend its time");
        assert!(state.begin() && state.head_since().is_none());
        state.received();
        assert_eq!(state.head_since(), None, "bytes of a body are not a head");
    }
}
