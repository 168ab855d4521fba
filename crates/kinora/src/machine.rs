//! What this machine is: its memory, and what a container leaves of it.
//!
//! Source: Linux's `proc_meminfo(5)` and `cgroups(7)`, and the kernel's documentation of control groups ("Memory Interface
//! Files"; "Memory Resource Controller" for version 1); other systems tell nothing here.

use std::path::Path;

/// Memory that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Of the machine, or of the container where that is less.
    pub total_bytes: u64,
    /// What can be had without swapping. Files kept in memory count as free, since the system drops them; files that are
    /// nowhere else (tmpfs, shared memory) do not.
    pub available_bytes: u64,
}

impl Memory {
    /// `None` where the system does not tell.
    pub fn read() -> Option<Self> {
        let machine = Self::of_machine(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limits = of_groups(&groups, Path::new("/sys/fs/cgroup"));
        Some(limits.into_iter().fold(machine, |least, limit| Self {
            total_bytes: least.total_bytes.min(limit.total_bytes),
            available_bytes: least.available_bytes.min(limit.available_bytes),
        }))
    }

    fn of_machine(text: &str) -> Option<Self> {
        let kilobytes = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().strip_suffix(" kB")?.parse().ok()
        };
        let bytes = |name| Some(kilobytes(name)? * 1024);
        Some(Self { total_bytes: bytes("MemTotal")?, available_bytes: bytes("MemAvailable")? })
    }
}

/// What a version of control groups calls a group's limit, its use, and the parts of that use that can be dropped.
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// Of `memory.stat`. The kernel's lists of pages from files leave out what has no other place, unlike its sum `file`
    /// or `cache`.
    droppable: [&'static str; 2],
}

const VERSION_2: Names =
    Names { limit: "memory.max", usage: "memory.current", droppable: ["active_file", "inactive_file"] };
const VERSION_1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    droppable: ["total_active_file", "total_inactive_file"],
};

/// The limits of the control groups in `/proc/self/cgroup`'s `text`, and of those around them, below `mount`.
fn of_groups(text: &str, mount: &Path) -> Vec<Memory> {
    let mut limits = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, names) = match controllers {
            "" => (mount.to_owned(), VERSION_2),
            list if list.split(',').any(|name| name == "memory") => (mount.join("memory"), VERSION_1),
            _ => continue,
        };
        let group = mount.join(path.trim_start_matches('/'));
        // In a container the path is often not the one that is mounted; the mount itself is then the group.
        let around = group.ancestors().take_while(|folder| folder.starts_with(&mount));
        limits.extend(around.filter_map(|folder| of_group(folder, &names)));
    }
    limits
}

/// The limit of one group, if it has one.
fn of_group(folder: &Path, names: &Names) -> Option<Memory> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let total_bytes: u64 = read(names.limit)?.trim().parse().ok()?; // "max" is no limit
    let used: u64 = read(names.usage)?.trim().parse().ok()?;
    let statistics = read("memory.stat").unwrap_or_default();
    let entries = statistics.lines().filter_map(|line| line.split_once(' '));
    let droppable: u64 = entries
        .filter(|(name, _)| names.droppable.contains(name))
        .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
        .sum();
    let held = used.saturating_sub(droppable);
    Some(Memory { total_bytes, available_bytes: total_bytes.saturating_sub(held) })
}

#[cfg(test)]
mod tests {
    use super::{Memory, of_groups};

    #[test]
    fn memory_is_read_in_kilobytes() {
        let memory =
            Memory::of_machine("MemTotal:       24000 kB\nMemFree: 1 kB\nMemAvailable:    2000 kB\n")
                .unwrap();
        assert_eq!((memory.total_bytes, memory.available_bytes), (24_000 * 1024, 2000 * 1024));
        assert!(Memory::of_machine("MemTotal: much").is_none());
    }

    #[test]
    fn a_containers_limit_counts_without_the_files_in_memory() {
        let mount = tempfile::tempdir().unwrap();
        let write = |group: &str, name: &str, text: &str| {
            std::fs::create_dir_all(mount.path().join(group)).unwrap();
            std::fs::write(mount.path().join(group).join(name), text).unwrap();
        };
        write("a/b", "memory.max", "max\n");
        write("a", "memory.max", "5000\n");
        write("a", "memory.current", "3000\n");
        // Of the 2200 in files, 700 lie on a tmpfs and nowhere else.
        let statistics =
            "anon 800\nfile 2200\nshmem 700\nfile_mapped 1\nactive_file 400\ninactive_file 1100\n";
        write("a", "memory.stat", statistics);
        let limits = of_groups("0::/a/b\n", mount.path());
        assert_eq!(limits, [Memory { total_bytes: 5000, available_bytes: 3500 }]);

        write("memory/job", "memory.limit_in_bytes", "900\n");
        write("memory/job", "memory.usage_in_bytes", "300\n");
        write(
            "memory/job",
            "memory.stat",
            "active_file 5\ntotal_cache 200\ntotal_shmem 50\ntotal_inactive_file 150\n",
        );
        let limits = of_groups("7:cpu:/job\n4:memory:/job\n", mount.path());
        assert_eq!(limits, [Memory { total_bytes: 900, available_bytes: 750 }]);

        write("memory/bare", "memory.limit_in_bytes", "900\n");
        write("memory/bare", "memory.usage_in_bytes", "100\n");
        let limits = of_groups("4:memory:/bare\n", mount.path());
        assert_eq!(limits, [Memory { total_bytes: 900, available_bytes: 800 }]);
        assert!(of_groups("", mount.path()).is_empty());
    }
}
