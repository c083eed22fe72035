//! Giving up: bounds of the process, groups, user, capabilities, and the way back to any of them.

use std::fs;

use caps::{CapSet, CapsHashSet};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{During, Limits, Plan, Privileges, StepError};

/// When the host is out of memory, functions go before anything of its own.
const OOM_SCORE_ADJ: &str = "500";

/// The kernel prefers the sandbox when it must kill. Best effort: some hosts forbid it.
pub(super) fn go_first_when_memory_ends() {
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
}

/// Bounds what this process and its children may use. A bound that is lower already stays.
pub(super) fn bound(limits: &Limits) -> Result<(), StepError> {
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

fn set(resource: Resource, value: u64) -> Result<(), StepError> {
    let (_, hard) = getrlimit(resource).during("read a limit")?;
    let value = value.min(hard);
    setrlimit(resource, value, value).during(format_args!("set {resource:?}"))
}

/// Becomes the sandbox's user, for good, without any capability.
pub(super) fn give_rights_up(plan: &Plan) -> Result<(), StepError> {
    // First, while it may: what is not in this set never comes back, whatever is executed.
    for capability in caps::read(None, CapSet::Bounding).during("read the bounding set")? {
        caps::drop(None, CapSet::Bounding, capability).during("empty the bounding set")?;
    }
    if plan.privileges == Privileges::Root {
        let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
        setgroups(&[]).during("leave the groups")?;
        setresgid(gid, gid, gid).during("change the group")?;
        setresuid(uid, uid, uid).during("change the user")?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &CapsHashSet::new()).during("give capabilities up")?;
    }
    prctl::set_no_new_privs().during("give new privileges up")
}
