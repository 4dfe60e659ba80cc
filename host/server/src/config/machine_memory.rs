//! The memory that this process may use: the smallest limit of its control groups, or what the machine has.

use std::fs;
use std::path::{Component, Path};

/// The memory of this machine, as a process sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MachineMemory {
    pub(super) bytes: u64,
    /// The origin of the number, for people.
    pub(super) from: &'static str,
}

/// Returns the memory that this process may use; `None` where the system does not say.
pub(super) fn machine_memory() -> Option<MachineMemory> {
    machine_memory_below(Path::new("/"))
}

/// Returns the memory as the files below `root` say.
fn machine_memory_below(root: &Path) -> Option<MachineMemory> {
    let machine = MachineMemory { bytes: installed(root)?, from: "60 % of the machine's memory" };
    let group = cgroup_limit(root).filter(|limit| *limit < machine.bytes);
    Some(group.map_or(machine, |bytes| MachineMemory { bytes, from: "60 % of the control group's memory" }))
}

/// Returns the machine's memory.
fn installed(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Returns the smallest limit of the process's control groups and of those above them, of either version.
fn cgroup_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        if controllers.is_empty() {
            smallest(&root.join("sys/fs/cgroup"), path, "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            smallest(&root.join("sys/fs/cgroup/memory"), path, "memory.limit_in_bytes")
        } else {
            None
        }
    });
    limits.min()
}

/// Returns the smallest number in the files called `file` in the group's folder and in all above it. A folder that is not
/// there is that of a group outside of this process's view; what is mounted in its place is above it.
fn smallest(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let below: Vec<&std::ffi::OsStr> = Path::new(group)
        .components()
        .filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
        .collect();
    let folders = (0..=below.len()).map(|depth| below[..depth].iter().fold(mount.to_owned(), |at, name| at.join(name)));
    // "max" is no limit.
    folders.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of 1 GiB with these files besides.
    fn machine(files: &[(&str, &str)]) -> Option<MachineMemory> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files.iter().chain(&[("proc/meminfo", "MemFree: 1 kB\nMemTotal:       1048576 kB\n")]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        machine_memory_below(root.path())
    }

    fn bytes(files: &[(&str, &str)]) -> u64 {
        machine(files).unwrap().bytes
    }

    #[test]
    fn the_smallest_limit_of_all_groups_above_counts() {
        let group = ("proc/self/cgroup", "0::/a.slice/b.scope\n");
        assert_eq!(bytes(&[]), 1 << 30);
        assert_eq!(bytes(&[group]), 1 << 30);
        let inner = ("sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n");
        assert_eq!(bytes(&[group, inner]), 1 << 30);
        let outer = ("sys/fs/cgroup/a.slice/memory.max", "300000000\n");
        let found = machine(&[group, inner, outer]).unwrap();
        assert_eq!(found, MachineMemory { bytes: 300_000_000, from: "60 % of the control group's memory" });
        assert_eq!(bytes(&[group, outer, ("sys/fs/cgroup/memory.max", "200000000")]), 200_000_000);
        assert_eq!(bytes(&[group, ("sys/fs/cgroup/memory.max", "9000000000")]), 1 << 30, "the machine has less");
    }

    #[test]
    fn the_older_version_and_a_group_outside_of_the_view_are_read() {
        let group = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n");
        assert_eq!(bytes(&[group, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "100000000\n")]), 100_000_000);
        let inner = ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "50000000\n");
        assert_eq!(bytes(&[group, inner]), 50_000_000);
        let outside = ("proc/self/cgroup", "0::/../../other\n");
        assert_eq!(bytes(&[outside, ("sys/fs/cgroup/memory.max", "70000000\n")]), 70_000_000);
    }
}
