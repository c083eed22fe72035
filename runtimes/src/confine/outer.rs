//! The first half: makes the namespaces, starts the second half in them, waits for its end.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{self, Gid, Uid};

use super::{During, FAILED, INSIDE, Line, Network, Plan, Privileges, StepError, loopback, report};

/// This program, whatever became of its file.
const ITSELF: &str = "/proc/self/exe";
/// What the second half needs in the user namespace; it gives them up before the shim runs.
const KEPT: [Capability; 2] = [Capability::CAP_SYS_ADMIN, Capability::CAP_SETPCAP];

/// Returns the status with which the sandbox's process 1 ended; 128 + n for signal n.
pub(super) fn run(plan: &Plan) -> Result<u8, StepError> {
    if plan.privileges == Privileges::UserNamespace {
        enter_user_namespace()?;
    }
    let mut spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    if plan.network == Network::Loopback {
        spaces |= CloneFlags::CLONE_NEWNET;
    }
    unshare(spaces).during("make the namespaces")?;
    if plan.network == Network::Loopback {
        loopback::up().during("bring the loopback up")?;
    }
    if plan.privileges == Privileges::UserNamespace {
        // They would be lost at the second half's exec, since its user is not root.
        for capability in KEPT {
            caps::raise(None, CapSet::Inheritable, capability).during("keep a capability")?;
            caps::raise(None, CapSet::Ambient, capability).during("keep a capability")?;
        }
    }
    let mut inside = start_inside(plan)?;
    report(&Line::Pid(inside.id()));
    // From here on the report is the second half's, and ends with it or at its exec.
    let null = File::options().write(true).open("/dev/null").during("open /dev/null")?;
    unistd::dup2_stdout(&null).during("close the report")?;
    let status = inside.wait().during("wait for the sandbox")?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or_else(|| signal.map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED))
}

/// The caller stays who it is, and may mount in the namespaces that it makes from here on.
fn enter_user_namespace() -> Result<(), StepError> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER).during("make a user namespace")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).during("map the user")?;
    fs::write("/proc/self/setgroups", "deny").during("give groups up")?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).during("map the group")
}

fn start_inside(plan: &Plan) -> Result<Child, StepError> {
    let mut child = Command::new(ITSELF)
        .args(["confine", INSIDE])
        .env_clear()
        .stdin(Stdio::piped())
        .spawn()
        .during("start the second half")?;
    let written = match child.stdin.take() {
        Some(mut stdin) => {
            serde_json::to_vec(plan).map_err(Into::into).and_then(|text| stdin.write_all(&text))
        }
        None => Err(std::io::ErrorKind::BrokenPipe.into()),
    };
    if written.is_err() {
        // It ends by itself, since its plan ends early; this is only faster.
        let _ = child.kill();
        let _ = child.wait();
    }
    written.during("hand the plan on").map(|()| child)
}
