//! One file of the plugin folder, and when it is loaded again.

use std::time::{Duration, Instant};

use wharf_core::bounds;
use wharf_core::time::Timestamp;

use crate::catalog::Step;
use crate::dir_scan::{Kind, Stamp};

/// A file of the folder.
pub(super) struct File {
    pub(super) kind: Kind,
    pub(super) stamp: Stamp,
    /// When it was first seen with this stamp.
    pub(super) since: Instant,
    /// When it was first seen with this stamp, by the store's clock, for users.
    pub(super) seen: Timestamp,
    /// The file is complete: it did not change for a while.
    pub(super) quiet: bool,
    /// The file was gone in the last scan. If it is gone in the next one, too, it counts as removed.
    pub(super) missing: bool,
    /// The stamp with which it was last loaded or refused.
    pub(super) handled: Option<Stamp>,
    /// The stamp with which the pending load started, and how far that is.
    pub(super) loading: Option<(Stamp, Step)>,
    /// It was refused for a reason that may pass.
    pub(super) retry: Option<Retry>,
}

/// The next load of a file whose last one failed for a reason that may pass.
#[derive(Clone, Copy)]
pub(super) struct Retry {
    at: Instant,
    /// The pause before it.
    pub(super) pause: Duration,
}

impl Retry {
    pub(super) fn after(last: Option<Retry>) -> Retry {
        let pause = last.map_or(bounds::LOAD_RETRY_MIN, |last| (last.pause * 2).min(bounds::LOAD_RETRY_MAX));
        Retry { at: Instant::now() + pause, pause }
    }
}

impl File {
    /// Notes that the file is not loaded again until it changes: its load was lost.
    pub(super) fn give_up(&mut self) {
        (self.loading, self.handled, self.retry) = (None, Some(self.stamp), None);
    }

    /// Returns true if the file is neither loaded nor refused as it is now.
    pub(super) fn is_pending(&self) -> bool {
        self.handled != Some(self.stamp)
    }

    /// Returns when the file is to be loaded again as it is.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.retry.filter(|_| self.loading.is_none() && !self.missing && !self.is_pending()).map(|retry| retry.at)
    }

    /// Returns true if others need not wait for the file: it is handled, or takes long.
    pub(super) fn is_decided(&self) -> bool {
        !self.is_pending() || self.loading.is_some_and(|(_, step)| step != Step::Reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_load_was_lost_is_not_loaded_again_until_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("words.wasm"), "a").unwrap();
        let found = crate::dir_scan::list(folder.path()).unwrap().remove(0);
        let (now, handled) = (Instant::now(), Some(found.stamp));
        let mut file = File {
            kind: found.kind,
            stamp: found.stamp,
            since: now,
            seen: Timestamp::ZERO,
            quiet: true,
            missing: false,
            handled,
            loading: None,
            retry: Some(Retry::after(None)),
        };
        assert!(file.next_retry().is_some(), "it was refused for a reason that may pass");
        file.loading = Some((found.stamp, Step::Reading));
        file.give_up();
        assert!(!file.is_pending() && file.is_decided() && file.loading.is_none());
        assert_eq!(file.next_retry(), None);
    }
}
