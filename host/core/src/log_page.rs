//! Limits how much of a job's log is read at once.

use crate::bounds;
use crate::job::NumberedEntry;

/// Collects entries as long as they have at most `bounds::PAGE_BYTES_MAX` bytes, so that a follower that is far behind keeps one
/// page in memory and not a whole log. A page has at least one entry, if there is any.
///
/// # Errors
/// The first error of `entries`.
pub fn log_page<E>(entries: impl Iterator<Item = Result<NumberedEntry, E>>) -> Result<Vec<NumberedEntry>, E> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for numbered in entries {
        let numbered = numbered?;
        bytes += numbered.entry.bytes() as u64;
        if bytes > bounds::PAGE_BYTES_MAX && !page.is_empty() {
            break;
        }
        page.push(numbered);
        if bytes >= bounds::PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Entry;
    use crate::time::Timestamp;

    fn entry(number: u64, bytes: u64) -> NumberedEntry {
        let entry = Entry::Chunk(vec![0; bytes as usize].into());
        NumberedEntry { number, attempt: 1, at: Timestamp::ZERO, entry }
    }

    /// Returns the numbers of the entries on the first page of a log with entries of these sizes.
    fn page(sizes: &[u64]) -> Vec<u64> {
        let entries = sizes.iter().zip(1..).map(|(bytes, number)| Ok::<_, ()>(entry(number, *bytes)));
        log_page(entries).unwrap().into_iter().map(|numbered| numbered.number).collect()
    }

    #[test]
    fn a_page_ends_before_the_entry_that_exceeds_the_bound() {
        let max = bounds::PAGE_BYTES_MAX;
        assert_eq!(page(&[max / 2, max / 2, 1]), [1, 2]);
        assert_eq!(page(&[max / 2, max / 2 - 1, 1, 1]), [1, 2, 3]);
        assert_eq!(page(&[1, max, 1]), [1], "the large one is read with the next page");
        assert_eq!(page(&[1, 2, 3]), [1, 2, 3]);
    }

    #[test]
    fn an_entry_larger_than_a_page_is_a_page_of_its_own() {
        assert_eq!(page(&[bounds::PAGE_BYTES_MAX + 1, 1]), [1], "a follower makes progress");
        assert_eq!(page(&[]), [0; 0]);
    }

    #[test]
    fn an_error_of_the_store_is_returned_and_no_entry_with_it() {
        assert_eq!(log_page([Ok(entry(1, 1)), Err("gone")].into_iter()), Err("gone"));
        let behind = [Ok(entry(1, bounds::PAGE_BYTES_MAX)), Err("not read")];
        assert_eq!(log_page(behind.into_iter()).map(|page| page.len()), Ok(1), "the page was full before it");
    }
}
