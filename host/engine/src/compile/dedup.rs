//! Plugins with the same bytes share their linked code: a component that is in the folder under a hundred names has its
//! code in memory once, and its sandboxes are warm for each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::compile::linked::Linked;

/// The linked code of loaded plugins, by digest. An entry ends with the last plugin that uses it.
#[derive(Default)]
pub(crate) struct LinkedCache(Mutex<HashMap<String, Weak<Linked>>>);

impl LinkedCache {
    pub(crate) fn find(&self, digest: &str) -> Option<Arc<Linked>> {
        self.all().get(digest)?.upgrade()
    }

    /// Returns the entry of this digest if there is one, else stores `linked` as its entry.
    pub(crate) fn get_or_insert(&self, digest: &str, linked: Linked) -> Arc<Linked> {
        let mut all = self.all();
        if let Some(first) = all.get(digest).and_then(Weak::upgrade) {
            return first;
        }
        let linked = Arc::new(linked);
        all.retain(|_, linked| linked.strong_count() > 0);
        all.insert(digest.to_owned(), Arc::downgrade(&linked));
        linked
    }

    /// Locked for one lookup, and never across an await.
    fn all(&self) -> MutexGuard<'_, HashMap<String, Weak<Linked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
