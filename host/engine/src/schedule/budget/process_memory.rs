//! The memory that this process has, as the kernel counts it.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Reads the anonymous memory of this process: pages of sandboxes and of the allocator, and not those of files.
pub(super) struct ProcessMemory {
    file: Option<File>,
    page_bytes: u64,
}

impl ProcessMemory {
    pub(super) fn open() -> ProcessMemory {
        ProcessMemory { file: File::open("/proc/self/statm").ok(), page_bytes: rustix::param::page_size() as u64 }
    }

    /// Returns the bytes; `None` where the system does not say.
    pub(super) fn bytes(&self) -> Option<u64> {
        let mut text = [0; 128];
        let count = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        anonymous_pages(std::str::from_utf8(text.get(..count)?).ok()?).map(|pages| pages * self.page_bytes)
    }
}

/// Returns the resident pages of a `statm` file that no file backs.
fn anonymous_pages(statm: &str) -> Option<u64> {
    let mut numbers = statm.split_ascii_whitespace().skip(1).map(|number| number.parse::<u64>().ok());
    let (resident, of_files) = (numbers.next()??, numbers.next()??);
    Some(resident.saturating_sub(of_files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_is_there_and_what_is_not_is_not() {
        assert_eq!(anonymous_pages("1000 300 100 20 0 50 0\n"), Some(200));
        assert_eq!((anonymous_pages(""), anonymous_pages("1 x 2")), (None, None));
        let memory = ProcessMemory::open();
        // Other tests of this process allocate meanwhile, but not as much as this.
        const MANY: usize = 1 << 30;
        let before = memory.bytes().expect("Linux says it");
        let mut pages = vec![0_u8; MANY];
        assert!(memory.bytes().expect("it is there") < before + MANY as u64 / 2);
        pages.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        assert!(memory.bytes().expect("it is there") > before + MANY as u64 / 2);
        drop(std::hint::black_box(pages));
    }
}
