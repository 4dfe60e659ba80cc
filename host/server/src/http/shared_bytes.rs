//! Large parts of responses that many clients receive: those that are in memory are shared.
//!
//! A client that reads slowly holds what was written for it. A thousand of them that follow one job, or read one result, hold the
//! same bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use axum::body::Bytes;
use wharf_core::ids::JobId;

use super::bytes::media_type;

/// Size in bytes from which bytes are shared. For smaller ones it would not pay.
const BYTES_MIN: usize = 4096;
/// Size in bytes up to which a media type is found on the thread of the request: some tenths of a millisecond.
const TYPED_INLINE_BYTES_MAX: usize = 256 * 1024;

/// Name of bytes that never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SharedName {
    /// Event of an entry of a job's log, by the entry's number.
    Entry(JobId, u64),
    /// Payload of a job.
    Payload(JobId),
    /// Result of a job that succeeded: such a job never runs again.
    Result(JobId),
}

/// The shared bytes that some response still has.
#[derive(Debug, Default)]
pub(crate) struct SharedBytes {
    /// Locked for one look-up.
    held: Mutex<HashMap<SharedName, Weak<Held>>>,
    /// The bytes that are being loaded. Locked for one look-up.
    loads: Mutex<HashMap<SharedName, Arc<tokio::sync::Mutex<()>>>>,
}

/// A place in the queue of those that want the same bytes loaded.
struct Load<'a> {
    all: &'a SharedBytes,
    name: SharedName,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        let mut loads = self.all.loads();
        // Shares are made under the lock: the table's and this one are all that are left.
        if Arc::strong_count(&self.turn) == 2 {
            loads.remove(&self.name);
        }
    }
}

/// Bytes, until the last response that has them is sent.
#[derive(Debug)]
struct Held {
    name: SharedName,
    bytes: Bytes,
    /// Media type of the bytes, once somebody has found it.
    media_type: OnceLock<&'static str>,
    all: Arc<SharedBytes>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.all.held();
        // Others may have been put there meanwhile.
        if held.get(&self.name).is_some_and(|one| one.strong_count() == 0) {
            held.remove(&self.name);
        }
    }
}

/// One response's hold of shared bytes.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Held>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Shared {
    /// Returns the bytes, as a part of a response.
    pub(crate) fn bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Returns the media type of the bytes. It is found once for all responses, and apart if they are large: a result is parsed as
    /// JSON for it.
    pub(crate) async fn media_type(&self) -> &'static str {
        let held = Arc::clone(&self.0);
        let find = move || *held.media_type.get_or_init(|| media_type(&held.bytes));
        match self.0.media_type.get() {
            Some(found) => found,
            None if self.0.bytes.len() <= TYPED_INLINE_BYTES_MAX => find(),
            // Whoever comes meanwhile waits for the first one. If finding it panicked, the bytes are just bytes.
            None => tokio::task::spawn_blocking(find).await.unwrap_or("application/octet-stream"),
        }
    }
}

impl SharedBytes {
    /// Returns the bytes of this name, if some response still has them.
    pub(crate) fn get(&self, name: SharedName) -> Option<Shared> {
        self.held().get(&name)?.upgrade().map(Shared)
    }

    /// Returns the bytes of this name: those that some response still has, or those that `load` returns. Only one of those that ask
    /// at once loads them.
    ///
    /// # Errors
    /// The error of `load`.
    pub(crate) async fn get_or_load<E>(
        self: &Arc<Self>,
        name: SharedName,
        load: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Shared, E> {
        if let Some(found) = self.get(name) {
            return Ok(found);
        }
        let place = Load { all: self, name, turn: Arc::clone(self.loads().entry(name).or_default()) };
        let _turn = place.turn.lock().await;
        match self.get(name) {
            Some(found) => Ok(found),
            None => Ok(self.share(name, load.await?)),
        }
    }

    /// Shares bytes under a name. Returns those that another response already has, where one does.
    pub(crate) fn share(self: &Arc<Self>, name: SharedName, bytes: Bytes) -> Shared {
        let is_small = bytes.len() < BYTES_MIN;
        let new = Arc::new(Held { name, bytes, media_type: OnceLock::new(), all: Arc::clone(self) });
        if is_small {
            return Shared(new);
        }
        let mut held = self.held();
        let found = held.get(&name).and_then(Weak::upgrade);
        if found.is_none() {
            held.insert(name, Arc::downgrade(&new));
        }
        drop(held);
        Shared(found.unwrap_or(new))
    }

    fn loads(&self) -> MutexGuard<'_, HashMap<SharedName, Arc<tokio::sync::Mutex<()>>>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<SharedName, Weak<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shared_as_long_as_somebody_has_them() {
        let (all, name) = (Arc::new(SharedBytes::default()), SharedName::Entry(JobId::from_number(7).unwrap(), 1));
        let fresh = |fill: u8| Bytes::from(vec![fill; BYTES_MIN]);
        let first = all.share(name, fresh(1)).bytes();
        let second = all.share(name, fresh(1)).bytes();
        assert_eq!(first.as_ptr(), second.as_ptr());
        drop(first);
        assert_eq!(all.get(name).unwrap().bytes().as_ptr(), second.as_ptr());
        // A part of them keeps them all.
        let part = second.slice(1..);
        drop(second);
        assert!(all.get(name).is_some());
        drop(part);
        assert!(all.get(name).is_none() && all.held().is_empty());
        assert_eq!(all.share(name, fresh(2)).as_ref()[0], 2);
    }

    #[test]
    fn small_bytes_are_not_shared() {
        let (all, name) = (Arc::new(SharedBytes::default()), SharedName::Result(JobId::from_number(7).unwrap()));
        let small = all.share(name, Bytes::from_static(b"small"));
        assert!(small.bytes() == "small" && all.get(name).is_none());
    }

    #[tokio::test]
    async fn those_that_ask_at_once_load_once() {
        let (all, name) = (Arc::new(SharedBytes::default()), SharedName::Result(JobId::from_number(7).unwrap()));
        let loads = std::cell::Cell::new(0);
        let ask = || {
            all.get_or_load(name, async {
                loads.set(loads.get() + 1);
                tokio::task::yield_now().await;
                Ok::<_, ()>(Bytes::from(vec![1; BYTES_MIN]))
            })
        };
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        let addresses = [one, two, three].map(|shared| shared.unwrap().bytes().as_ptr());
        assert!(loads.get() == 1 && addresses.iter().all(|at| *at == addresses[0]));
        assert!(all.loads().is_empty(), "nothing is left of the loads");
        // Who gives up leaves the turn to the next one, and a failure is told to whoever made it alone.
        let failed = all.get_or_load(name, async { Err("away") });
        let (failed, loaded) = tokio::join!(failed, ask());
        assert_eq!((failed.unwrap_err(), loaded.is_ok(), loads.get()), ("away", true, 2));
        let waits = ask();
        drop(waits);
        assert!(all.loads().is_empty());
    }

    #[tokio::test]
    async fn a_media_type_is_that_of_the_bytes_small_or_large() {
        let (all, id) = (Arc::new(SharedBytes::default()), JobId::from_number(7).unwrap());
        let json = |bytes: usize| Bytes::from(format!("\"{}\"", "x".repeat(bytes)));
        for (entry, bytes) in [8, BYTES_MIN, TYPED_INLINE_BYTES_MAX].into_iter().enumerate() {
            let shared = all.share(SharedName::Entry(id, entry as u64), json(bytes));
            for _ in 0..2 {
                assert_eq!(shared.media_type().await, "application/json");
            }
        }
    }
}
