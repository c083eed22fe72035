//! The outer stage: makes the namespaces, starts the inner stage in them and waits for it to end.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{self, Gid, Uid};

use super::{
    FAILED, INSIDE, IsolatedNetwork, IsolationError, IsolationPlan, IsolationPrivileges,
    IsolationReport, StepContext, loopback, report,
};

/// This program, even if its file was replaced or deleted.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// What the inner stage needs in the user namespace; it drops them before the shim runs.
const KEPT: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SETPCAP];

/// Returns the status with which the sandbox's process 1 ended; 128 + n for signal n.
pub(super) fn run(plan: &IsolationPlan) -> Result<u8, IsolationError> {
    if plan.privileges == IsolationPrivileges::UserNamespace {
        enter_user_namespace()?;
    }
    let mut spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    if plan.network == IsolatedNetwork::Loopback {
        spaces |= CloneFlags::CLONE_NEWNET;
    }
    unshare(spaces).in_step("make the namespaces")?;
    if plan.network == IsolatedNetwork::Loopback {
        loopback::up().in_step("bring the loopback up")?;
    }
    if plan.privileges == IsolationPrivileges::UserNamespace {
        // Without the ambient set the inner stage's exec would clear them: its user is not root.
        for capability in KEPT {
            caps::raise(None, CapSet::Inheritable, capability).in_step("keep a capability")?;
            caps::raise(None, CapSet::Ambient, capability).in_step("keep a capability")?;
        }
    }
    let mut inside = start_inside(plan)?;
    report(&IsolationReport::Pid(inside.id()));
    // Only the inner stage holds standard output from here on: the report ends when it executes the
    // shim or exits.
    let null = File::options().write(true).open("/dev/null").in_step("open /dev/null")?;
    unistd::dup2_stdout(&null).in_step("close the report")?;
    let status = inside.wait().in_step("wait for the sandbox")?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or_else(|| signal.map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED))
}

/// Maps the caller's user and group onto themselves. In namespaces made after this it may mount.
fn enter_user_namespace() -> Result<(), IsolationError> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER).in_step("make a user namespace")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).in_step("map the user")?;
    fs::write("/proc/self/setgroups", "deny").in_step("deny setgroups")?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).in_step("map the group")
}

fn start_inside(plan: &IsolationPlan) -> Result<Child, IsolationError> {
    let mut child = Command::new(OWN_PROGRAM)
        .args(["isolate", INSIDE])
        .env_clear()
        .stdin(Stdio::piped())
        .spawn()
        .in_step("start the inner stage")?;
    let written = match child.stdin.take() {
        Some(mut stdin) => {
            serde_json::to_vec(plan).map_err(Into::into).and_then(|text| stdin.write_all(&text))
        }
        None => Err(std::io::ErrorKind::BrokenPipe.into()),
    };
    if written.is_err() {
        // An incomplete plan makes it exit anyway; killing it is only faster.
        let _ = child.kill();
        let _ = child.wait();
    }
    written.in_step("pass the plan on").map(|()| child)
}
