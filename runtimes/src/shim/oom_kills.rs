//! Counts processes of this sandbox that the kernel killed because memory ran out.

use std::fs;
use std::path::{Path, PathBuf};

/// Reads the count from the sandbox's own control group, where it is readable.
#[derive(Debug)]
pub(super) struct OomKillCounter {
    file: Option<PathBuf>,
}

impl OomKillCounter {
    /// Finds the file for this process.
    pub(super) fn find() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let file = candidates(&groups, Path::new("/sys/fs/cgroup"))
            .into_iter()
            .find(|file| read(file).is_some());
        Self { file }
    }

    /// The count until now; `None` where it is not readable.
    pub(super) fn count(&self) -> Option<u64> {
        self.file.as_deref().and_then(read)
    }
}

fn read(file: &Path) -> Option<u64> {
    kills(&fs::read_to_string(file).ok()?)
}

/// `memory.events` (v2) and `memory.oom_control` (v1) have the same line, `oom_kill 3`.
fn kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// Where the file may be: by the group's path, or, where the sandbox has a mount of its own group
/// alone (as in a container), at the root of the mount.
fn candidates(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let path = path.trim_start_matches('/');
        if controllers.split(',').any(|controller| controller == "memory") {
            let mount = root.join("memory");
            found.push(mount.join(path).join("memory.oom_control"));
            found.push(mount.join("memory.oom_control"));
        } else if controllers.is_empty() {
            found.push(root.join(path).join("memory.events"));
            found.push(root.join("memory.events"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_tell_their_kills() {
        assert_eq!(kills("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), Some(1));
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\n"), None);
        assert_eq!(kills("oom_kill many"), None);
    }

    #[test]
    fn the_file_is_sought_by_path_and_at_the_mount() {
        let root = Path::new("/c");
        let v2: Vec<_> = candidates("0::/docker/abc\n", root);
        assert_eq!(v2, [root.join("docker/abc/memory.events"), root.join("memory.events")]);
        let v1 = candidates("3:cpu,cpuacct:/x\n9:memory:/docker/abc\nnonsense", root);
        assert_eq!(
            v1,
            [
                root.join("memory/docker/abc/memory.oom_control"),
                root.join("memory/memory.oom_control")
            ]
        );
    }
}
