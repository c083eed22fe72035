//! Isolates a soak from the host: network, mount and process-id namespaces of its own, so that its
//! ports and firewall rules collide with nothing and every process in them ends with it.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};

use crate::cgroups;
use crate::services::cgroup;

/// # Errors
/// The soak was not started by root.
pub(crate) fn check_root() -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        bail!("the soak needs root: it mounts disks and runs a Docker engine of its own");
    }
    Ok(())
}

/// Replaces this process by `unshare`, which runs this program again with these arguments as the
/// init process of new namespaces.
///
/// # Errors
/// `unshare` cannot be run.
pub(crate) fn enter(args: &[String]) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("where this program is")?;
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "--"])
        .arg(program)
        .args(args);
    Err(command.exec()).context("unshare (package util-linux)")
}

/// The init process of the namespaces: starts the soak and reaps orphans. When the soak has ended
/// it kills whatever remains and removes `work`; with `keep`, only after a success.
///
/// # Errors
/// The soak cannot be started, or was killed.
pub(crate) fn init_process(args: &[String], work: &Path, keep: bool) -> anyhow::Result<u8> {
    let ended = run_soak(args);
    // All processes in the namespace but this one.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while !matches!(waitpid(None, None), Err(Errno::ECHILD)) {}
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let ours: Vec<_> = points.filter(|point| Path::new(point).starts_with(work)).collect();
    for point in ours.into_iter().rev() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
    cgroups::remove_all(&cgroup(work));
    if !keep || matches!(ended, Ok(0)) {
        std::fs::remove_dir_all(work).with_context(|| work.display().to_string())?;
    }
    ended
}

fn run_soak(args: &[String]) -> anyhow::Result<u8> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).stdin(Stdio::null()).status();
    if !up.context("ip (package iproute2)")?.success() {
        bail!("the loopback device does not come up");
    }
    let program = std::env::current_exe().context("where this program is")?;
    let child = Command::new(program).args(args).stdin(Stdio::null()).spawn()?;
    let soak = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == soak => {
                return Ok(u8::try_from(code).unwrap_or(1));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == soak => {
                bail!("the soak itself was ended by {signal}");
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for processes"),
        }
    }
}
