//! A cage of our own for everything that the soak starts: network, mounts and process ids apart
//! from the host's. Ports and firewall rules meet nobody's, and nothing outlives the cage.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};

/// # Errors
/// We are not root.
pub(crate) fn check_root() -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        bail!("the soak needs root: it mounts disks and runs a Docker engine of its own");
    }
    Ok(())
}

/// Becomes `unshare`, which runs this program again, with these arguments, as the cage's first
/// process.
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

/// The cage's first process: runs the soak itself and buries what is orphaned. When it ends, the
/// kernel ends all others.
///
/// # Errors
/// The soak cannot be started.
pub(crate) fn first_process(args: &[String]) -> anyhow::Result<u8> {
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
