//! How much of a job's log is read at once.

use wharf_core::bounds;
use wharf_core::job::NumberedEntry;
use wharf_core::planner::entry_bytes;

/// The first entries, until a page has its bytes: a follower that is far behind holds one page, not a whole log.
pub(crate) fn one_page<E>(entries: impl Iterator<Item = Result<NumberedEntry, E>>) -> Result<Vec<NumberedEntry>, E> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for numbered in entries {
        let numbered = numbered?;
        bytes += entry_bytes(&numbered.entry) as u64;
        page.push(numbered);
        if bytes >= bounds::PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(page)
}
