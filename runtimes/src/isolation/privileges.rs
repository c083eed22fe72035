//! Drops privileges for good: resource limits, groups, user, capabilities, `no_new_privs`.

use std::fs;

use caps::{CapSet, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{IsolationError, IsolationPlan, IsolationPrivileges, ProcessLimits, StepContext};

/// Makes the kernel's OOM killer choose functions before the host's own processes.
const OOM_SCORE_ADJ: &str = "500";

/// Raises this process's OOM score. Best effort: some hosts forbid it.
pub(super) fn raise_oom_score() {
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
}

/// Sets the resource limits of this process and its children. A limit that is already lower stays.
pub(super) fn set_limits(limits: &ProcessLimits) -> Result<(), IsolationError> {
    set_limit(Resource::RLIMIT_CORE, 0)?;
    set_limit(Resource::RLIMIT_NOFILE, limits.open_files)?;
    if let Some(processes) = limits.processes {
        set_limit(Resource::RLIMIT_NPROC, processes)?;
    }
    if let Some(bytes) = limits.data_bytes {
        set_limit(Resource::RLIMIT_DATA, bytes)?;
    }
    Ok(())
}

fn set_limit(resource: Resource, value: u64) -> Result<(), IsolationError> {
    let (_, hard) = getrlimit(resource).in_step("read a limit")?;
    let value = value.min(hard);
    setrlimit(resource, value, value).in_step(format_args!("set {resource:?}"))
}

/// Changes to the sandbox's user without any capability; neither can be undone.
pub(super) fn drop_privileges(plan: &IsolationPlan) -> Result<(), IsolationError> {
    // First, while this is still permitted: a capability that is not in the bounding set cannot be
    // regained by executing any program.
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
        caps::set(None, set, &CapsHashSet::new()).in_step("drop capabilities")?;
    }
    prctl::set_no_new_privs().in_step("set no_new_privs")
}
