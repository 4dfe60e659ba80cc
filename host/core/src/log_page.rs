//! Limits how much of a job's log is read at once.

use crate::bounds;
use crate::job::NumberedEntry;

/// Collects entries until they reach `bounds::PAGE_BYTES_MAX`, so that a follower that is far behind keeps one page in
/// memory and not a whole log. A page has at least one entry, if there is any.
///
/// # Errors
/// The first error of `entries`.
pub fn log_page<E>(entries: impl Iterator<Item = Result<NumberedEntry, E>>) -> Result<Vec<NumberedEntry>, E> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for numbered in entries {
        let numbered = numbered?;
        bytes += numbered.entry.bytes() as u64;
        page.push(numbered);
        if bytes >= bounds::PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(page)
}
