//! The process as Linux shows it in `/proc/self`, under the names that Prometheus' own clients use.

use std::fs;
use std::time::Duration;

/// The resources that the process uses at one moment, without those that the system does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessUse {
    /// Processor time, of the user and of the system.
    pub(super) cpu: Option<Duration>,
    /// Bytes of memory that are resident.
    pub(super) resident_bytes: Option<u64>,
    /// Bytes of address space, most of which is reserved for sandboxes and never used.
    pub(super) virtual_bytes: Option<u64>,
    /// Number of open files.
    pub(super) open_files: Option<u64>,
    /// The limit of open files.
    pub(super) files_max: Option<u64>,
    /// Number of threads.
    pub(super) threads: Option<u64>,
    /// When the process started, since 1970.
    pub(super) started: Option<Duration>,
}

impl ProcessUse {
    /// Reads what this process uses now.
    pub(super) fn now() -> ProcessUse {
        let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let open_files = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
        let mut found = ProcessUse { open_files, ..ProcessUse::default() };
        found.read_stat(&read("self/stat"), &read("stat"));
        found.read_status(&read("self/status"));
        found.files_max = files_max(&read("self/limits"));
        found
    }

    /// Reads `/proc/self/stat`, and from `/proc/stat` when the system started.
    fn read_stat(&mut self, stat: &str, of_system: &str) {
        // The name of the program, in brackets, may have blanks and brackets.
        let Some((_, fields)) = stat.rsplit_once(')') else { return };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The first one is the third of the file.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let boot = of_system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
        self.cpu = field(14).zip(field(15)).map(|(user, system)| ticks(user + system));
        self.threads = field(20);
        self.started = boot.zip(field(22)).map(|(boot, after)| Duration::from_secs(boot) + ticks(after));
    }

    fn read_status(&mut self, status: &str) {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        (self.resident_bytes, self.virtual_bytes) = (bytes("VmRSS:"), bytes("VmSize:"));
    }
}

/// Returns a number of ticks of the clock as a time: Linux shows 100 in a second to every program.
fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 10)
}

fn files_max(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_does_not_matter() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 12 0 200 1000000 500 18446744073709551615";
        let mut found = ProcessUse::default();
        found.read_stat(stat, "cpu 1 2\nbtime 1000\n");
        assert_eq!((found.cpu, found.threads), (Some(Duration::from_secs(3)), Some(12)));
        assert_eq!(found.started, Some(Duration::from_secs(1002)));
        found.read_status("Name:\tx\nVmSize:\t   2048 kB\nVmRSS:\t      12 kB\n");
        assert_eq!((found.virtual_bytes, found.resident_bytes), (Some(2 << 20), Some(12 << 10)));
        assert_eq!(
            files_max("Limit Soft Hard\nMax open files            1024                 4096 files\n"),
            Some(1024)
        );
        let mut nothing = ProcessUse::default();
        nothing.read_stat("", "");
        nothing.read_status("");
        assert_eq!((nothing, files_max("Max open files unlimited")), (ProcessUse::default(), None));
    }

    #[test]
    fn this_process_is_shown() {
        let found = ProcessUse::now();
        assert!(found.resident_bytes.is_some_and(|bytes| bytes > 0) && found.open_files.is_some_and(|files| files > 2));
        assert!(found.started.is_some() && found.cpu.is_some() && found.threads.is_some(), "{found:?}");
    }
}
