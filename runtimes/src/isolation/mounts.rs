//! Single mount operations, and parsing of `/proc/self/mountinfo`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

use super::{IsolationError, StepContext};

/// The mount point and flags of one line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MountEntry {
    pub(super) at: PathBuf,
    pub(super) flags: MsFlags,
}

/// Binds `source`, with everything mounted below it, to `target`, which is created if missing.
pub(super) fn bind(source: &Path, target: &Path) -> Result<(), IsolationError> {
    if source.is_dir() {
        fs::create_dir_all(target).in_step(format_args!("make {}", target.display()))?;
    } else {
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).in_step(format_args!("make {}", parent.display()))?;
        }
        File::create(target).in_step(format_args!("make {}", target.display()))?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), target, None::<&str>, flags, None::<&str>)
        .in_step(format_args!("mount {}", source.display()))
}

/// Mounts a file system that has no device.
pub(super) fn virtual_fs(
    kind: &str,
    target: &Path,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<(), IsolationError> {
    fs::create_dir_all(target).in_step(format_args!("make {}", target.display()))?;
    mount(Some(kind), target, Some(kind), flags, options).in_step(format_args!("mount a {kind}"))
}

/// Remounts with more flags. Existing ones are kept: in a user namespace the kernel requires it.
pub(super) fn remount_with(mounted: &MountEntry, more: MsFlags) -> Result<(), IsolationError> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | mounted.flags | more;
    mount(None::<&str>, &mounted.at, None::<&str>, flags, None::<&str>)
        .in_step(format_args!("tighten {}", mounted.at.display()))
}

/// All mounts that this process sees.
pub(super) fn all() -> Result<Vec<MountEntry>, IsolationError> {
    let text = fs::read_to_string("/proc/self/mountinfo").in_step("read the mounts")?;
    Ok(text.lines().filter_map(parse).collect())
}

/// Fields 5 and 6 are the mount point and its options; see `proc_pid_mountinfo(5)`.
fn parse(line: &str) -> Option<MountEntry> {
    let mut fields = line.split(' ').skip(4);
    let at = PathBuf::from(unescaped(fields.next()?));
    let mut flags = MsFlags::empty();
    for option in fields.next()?.split(',') {
        flags |= match option {
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "relatime" => MsFlags::MS_RELATIME,
            _ => MsFlags::empty(),
        };
    }
    Some(MountEntry { at, flags })
}

/// The kernel writes blank, tab, line feed and backslash of a path in octal.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_gives_place_and_flags() {
        let line = "36 35 98:0 /mnt1 /a\\040b rw,nosuid,relatime master:1 - ext3 /dev/root rw";
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_RELATIME;
        assert_eq!(parse(line), Some(MountEntry { at: "/a b".into(), flags }));
        assert_eq!(parse("36 35"), None);
    }
}
