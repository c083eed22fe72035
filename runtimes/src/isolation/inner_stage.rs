//! The inner stage: process 1 of the sandbox, until it becomes the shim.

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
        // 0 stands for the writing process. Done first, so that all that follows is accounted for.
        fs::write(group, "0").in_step(format_args!("join {}", group.display()))?;
    }
    privileges::raise_oom_score();
    // Without a control group the kernel shares processors fairly among sessions (sched(7), "The
    // autogroup feature"). This fails only for a process group leader, which this process is not.
    let _ = setsid();
    sethostname(&plan.hostname).in_step("set the host name")?;
    umask(Mode::from_bits_truncate(0o022));
    root_filesystem::enter(plan)?;
    if plan.privileges == IsolationPrivileges::Root {
        unshare(CloneFlags::CLONE_NEWCGROUP).in_step("make a group namespace")?;
    }
    privileges::set_limits(&plan.limits)?;
    privileges::drop_privileges(plan)?;
    // After the change of user, which would clear it: when the outer stage ends, so does the sandbox.
    prctl::set_pdeathsig(Signal::SIGKILL).in_step("set the parent death signal")?;
    let Some((program, arguments)) = plan.command.split_first() else {
        return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput))
            .in_step("find the shim");
    };
    // Standard error stays the invoker's pipe, for the shim's message when it cannot start.
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .env(SHIM_ENV.0, SHIM_ENV.1)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .exec();
    Err(error).in_step(format_args!("execute {program}"))
}
