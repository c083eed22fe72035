//! Giving up: bounds of the process, groups, user, capabilities, and the way back to any of them.

use std::fs;

use caps::{CapSet, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{IsolationError, IsolationPlan, IsolationPrivileges, ProcessLimits, StepContext};

/// When the host is out of memory, functions go before anything of its own.
const OOM_SCORE_ADJ: &str = "500";

/// The kernel prefers the sandbox when it must kill. Best effort: some hosts forbid it.
pub(super) fn go_first_when_memory_ends() {
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
}

/// Bounds what this process and its children may use. A bound that is lower already stays.
pub(super) fn bound(limits: &ProcessLimits) -> Result<(), IsolationError> {
    set(Resource::RLIMIT_CORE, 0)?;
    set(Resource::RLIMIT_NOFILE, limits.open_files)?;
    if let Some(processes) = limits.processes {
        set(Resource::RLIMIT_NPROC, processes)?;
    }
    if let Some(bytes) = limits.data_bytes {
        set(Resource::RLIMIT_DATA, bytes)?;
    }
    Ok(())
}

fn set(resource: Resource, value: u64) -> Result<(), IsolationError> {
    let (_, hard) = getrlimit(resource).in_step("read a limit")?;
    let value = value.min(hard);
    setrlimit(resource, value, value).in_step(format_args!("set {resource:?}"))
}

/// Becomes the sandbox's user, for good, without any capability.
pub(super) fn give_rights_up(plan: &IsolationPlan) -> Result<(), IsolationError> {
    // First, while it may: what is not in this set never comes back, whatever is executed.
    for capability in caps::read(None, CapSet::Bounding).in_step("read the bounding set")? {
        caps::drop(None, CapSet::Bounding, capability).in_step("empty the bounding set")?;
    }
    if plan.privileges == IsolationPrivileges::Root {
        let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
        setgroups(&[]).in_step("leave the groups")?;
        setresgid(gid, gid, gid).in_step("change the group")?;
        setresuid(uid, uid, uid).in_step("change the user")?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &CapsHashSet::new()).in_step("give capabilities up")?;
    }
    prctl::set_no_new_privs().in_step("give new privileges up")
}
