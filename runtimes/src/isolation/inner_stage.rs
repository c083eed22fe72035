//! The second half: process 1 of the sandbox, until it becomes the shim.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{sethostname, setsid};

use crate::wire::SHIM_ENV;

use super::{
    IsolationError, IsolationPlan, IsolationPrivileges, StepContext, privileges, root_filesystem,
};

/// Returns only if it fails.
pub(super) fn become_shim(plan: &IsolationPlan) -> Result<u8, IsolationError> {
    for group in &plan.groups {
        // 0 is whoever writes. First of all, so that whatever follows is counted.
        fs::write(group, "0").in_step(format_args!("join {}", group.display()))?;
    }
    privileges::go_first_when_memory_ends();
    // Where no group shares the processors out, the kernel does so among sessions (sched(7), "The
    // autogroup feature"). Refused only to who leads a group, which we do not.
    let _ = setsid();
    sethostname(&plan.hostname).in_step("set the host name")?;
    umask(Mode::from_bits_truncate(0o022));
    root_filesystem::enter(plan)?;
    if plan.privileges == IsolationPrivileges::Root {
        unshare(CloneFlags::CLONE_NEWCGROUP).in_step("make a group namespace")?;
    }
    privileges::bound(&plan.limits)?;
    privileges::give_rights_up(plan)?;
    // After the change of user, which clears it: the first half's end is the sandbox's.
    prctl::set_pdeathsig(Signal::SIGKILL).in_step("tie the sandbox to its starter")?;
    let Some((program, arguments)) = plan.command.split_first() else {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput))
            .in_step("find the shim");
    };
    // Standard error stays the invoker's pipe: what the shim says when it cannot start.
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .env(SHIM_ENV.0, SHIM_ENV.1)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .exec();
    Err(error).in_step(format_args!("execute {program}"))
}
