//! The number of files that this process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Raises the limit of open files as far as the system allows: every follower of a job, every sandbox with a folder and
/// every request of a plugin needs a descriptor.
pub(crate) fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "could not raise the limit of open files");
    }
}

/// Returns the number of files that may be open now; `None` if there is no limit.
pub(crate) fn file_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
