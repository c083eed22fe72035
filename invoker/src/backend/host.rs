//! The machine that sandboxes run on, as it is reached from here.
//!
//! Usually its namespaces are ours. Where this program runs in a container beside the engine (the
//! invoker of docker-compose.yml, with the host's process ids and the capabilities to enter its
//! namespaces), mounts, firewall rules and control groups must be the host's: they are reached
//! through a process that lives there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian and others have nsenter, mkfs.ext4, mount and umount.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// The process that lives as long as the host does.
const INIT: u32 = 1;

/// The machine that sandboxes run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxHost {
    /// A process in the host's namespaces; `None` where ours are the host's.
    namespaces_of: Option<u32>,
}

impl SandboxHost {
    /// Our own namespaces are the host's.
    pub(crate) fn local() -> Self {
        Self { namespaces_of: None }
    }

    /// The host of process `engine`, if its namespaces can be entered and it has our folder
    /// `shared` at the same path.
    pub(crate) fn of_engine(engine: u32, shared: &Path) -> Option<Self> {
        let mounts = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt"));
        let (theirs, ours) = (mounts(&engine.to_string()), mounts("self").ok()?);
        match theirs {
            Ok(theirs) if theirs == ours => Some(Self::local()),
            Ok(theirs) => {
                let init = mounts(&INIT.to_string()).is_ok_and(|init| init == theirs);
                let host = Self { namespaces_of: Some(if init { INIT } else { engine }) };
                host.has(shared).then_some(host)
            }
            // Not readable: it is root's, as engines on the same host are, and we are not root.
            Err(error) => (error.kind() == io::ErrorKind::PermissionDenied).then(Self::local),
        }
    }

    /// Whether `path` is the same file there as here.
    fn has(&self, path: &Path) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
        match (identity(path), identity(&self.path(path))) {
            (Ok(here), Ok(there)) => here == there,
            _ => false,
        }
    }

    /// Whether this program runs in a container on the host.
    pub(crate) fn contains_us(&self) -> bool {
        self.namespaces_of.is_some()
    }

    /// The path by which an absolute path of the host is reached from here.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        match self.namespaces_of {
            None => path.to_owned(),
            Some(pid) => {
                let root = PathBuf::from(format!("/proc/{pid}/root"));
                root.join(path.strip_prefix("/").unwrap_or(path))
            }
        }
    }

    /// A command that runs with the host's mounts, network and control groups.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = match self.namespaces_of {
            None => Command::new(program),
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.args(["--mount", "--net", "--cgroup", "--target", &pid.to_string(), "--"]);
                command.arg(program);
                command
            }
        };
        command.env("PATH", PATH);
        command
    }

    /// The lines of the host's `/proc/mounts`.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn mounts(&self) -> io::Result<String> {
        match self.namespaces_of {
            None => fs::read_to_string("/proc/self/mounts"),
            Some(pid) => fs::read_to_string(format!("/proc/{pid}/mounts")),
        }
    }

    /// The lines of `/proc/<pid>/cgroup`, with paths from the root of the host's hierarchies. Blocks
    /// for some milliseconds where only the host can tell.
    ///
    /// # Errors
    /// What the kernel says: mostly that the process has ended.
    pub(crate) fn cgroup_of_pid(&self, pid: u32) -> io::Result<String> {
        let file = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&file)?;
        // In a control group namespace of our own, paths of others start with `/..`.
        if !self.contains_us() || !text.contains(":/..") {
            return Ok(text);
        }
        let output = self.command(Path::new("cat")).arg(&file).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_our_mounts_is_on_our_host() {
        let host = SandboxHost::of_engine(std::process::id(), Path::new("/nowhere")).unwrap();
        assert_eq!(host, SandboxHost::local());
        assert_eq!(host.path(Path::new("/etc")), Path::new("/etc"));
        assert_eq!(host.command(Path::new("mount")).get_program(), "mount");
    }

    #[test]
    fn another_host_is_reached_through_one_of_its_processes() {
        let host = SandboxHost { namespaces_of: Some(7) };
        assert_eq!(host.path(Path::new("/a/b")), Path::new("/proc/7/root/a/b"));
        let command = host.command(Path::new("umount"));
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        assert_eq!(command.get_program(), "nsenter");
        assert_eq!(words.last().unwrap(), "umount");
        assert!(words.contains(&"7".into()), "{words:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_on_no_host() {
        assert_eq!(SandboxHost::of_engine(u32::MAX, Path::new("/")), None);
    }
}
