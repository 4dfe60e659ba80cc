//! Plugins of the same bytes share what was made of them: a component that stands in the folder under a hundred names
//! has its code in memory once, and its sandboxes are warm for each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::compile::linked::Linked;

/// By digest. What no plugin holds any more is gone.
#[derive(Default)]
pub(crate) struct Alike(Mutex<HashMap<String, Weak<Linked>>>);

impl Alike {
    pub(crate) fn find(&self, digest: &str) -> Option<Arc<Linked>> {
        self.all().get(digest)?.upgrade()
    }

    /// The same that others have, if someone was first.
    pub(crate) fn keep(&self, digest: &str, linked: Linked) -> Arc<Linked> {
        let mut all = self.all();
        if let Some(first) = all.get(digest).and_then(Weak::upgrade) {
            return first;
        }
        let linked = Arc::new(linked);
        all.retain(|_, linked| linked.strong_count() > 0);
        all.insert(digest.to_owned(), Arc::downgrade(&linked));
        linked
    }

    /// Locked for one look, and never across an await.
    fn all(&self) -> MutexGuard<'_, HashMap<String, Weak<Linked>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
