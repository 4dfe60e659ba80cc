//! Large parts of responses that many clients receive: those that are in memory are shared.
//!
//! A client that reads slowly holds what was written for it. A thousand of them that follow one job, or read one result, hold the
//! same bytes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use axum::body::Bytes;
use wharf_core::ids::JobId;

/// Size in bytes from which bytes are shared. For smaller ones it would not pay.
const BYTES_MIN: usize = 4096;

/// Name of bytes that never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SharedName {
    /// Event of an entry of a job's log, by the entry's number.
    Entry(JobId, u64),
    /// Result of a job that succeeded: such a job never runs again.
    Result(JobId),
}

/// The shared bytes that some response still has.
#[derive(Debug, Default)]
pub(crate) struct SharedBytes {
    /// Locked for one look-up.
    held: Mutex<HashMap<SharedName, Weak<Held>>>,
}

/// Bytes, until the last response that has them is sent.
#[derive(Debug)]
struct Held {
    name: SharedName,
    bytes: Bytes,
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
struct Hold(Arc<Held>);

impl AsRef<[u8]> for Hold {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl SharedBytes {
    /// Returns the bytes of this name, if some response still has them.
    pub(crate) fn get(&self, name: SharedName) -> Option<Bytes> {
        let held = self.held().get(&name)?.upgrade()?;
        Some(Bytes::from_owner(Hold(held)))
    }

    /// Shares bytes under a name. Returns those that another response already has, where one does.
    pub(crate) fn share(self: &Arc<Self>, name: SharedName, bytes: Bytes) -> Bytes {
        if bytes.len() < BYTES_MIN {
            return bytes;
        }
        let new = Arc::new(Held { name, bytes, all: Arc::clone(self) });
        let mut held = self.held();
        let found = held.get(&name).and_then(Weak::upgrade);
        if found.is_none() {
            held.insert(name, Arc::downgrade(&new));
        }
        drop(held);
        Bytes::from_owner(Hold(found.unwrap_or(new)))
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
        let first = all.share(name, fresh(1));
        let second = all.share(name, fresh(1));
        assert_eq!(first.as_ptr(), second.as_ptr());
        drop(first);
        assert_eq!(all.get(name).unwrap().as_ptr(), second.as_ptr());
        // A part of them keeps them all.
        let part = second.slice(1..);
        drop(second);
        assert!(all.get(name).is_some());
        drop(part);
        assert!(all.get(name).is_none() && all.held().is_empty());
        assert_eq!(all.share(name, fresh(2))[0], 2);
    }

    #[test]
    fn small_bytes_are_not_shared() {
        let (all, name) = (Arc::new(SharedBytes::default()), SharedName::Result(JobId::from_number(7).unwrap()));
        let small = all.share(name, Bytes::from_static(b"small"));
        assert!(small == "small" && all.get(name).is_none());
    }
}
