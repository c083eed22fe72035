//! Control groups of containers, and cleaning up those that a killed dockerd has lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::services::DockerDaemon;

/// All children of this control group, in every hierarchy.
pub(crate) fn groups(parent: &str) -> Vec<String> {
    let below = roots(parent);
    let below = below.iter().filter_map(|root| fs::read_dir(root).ok()).flatten().flatten();
    let folders = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path().display().to_string()).collect()
}

/// The paths of this control group in every hierarchy, existing or not.
fn roots(group: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut roots = vec![Path::new("/sys/fs/cgroup").join(group)];
    roots.extend(hierarchies.map(|each| each.path().join(group)));
    roots
}

/// Ends containers that the engine has lost. A dockerd that is killed while it starts a container,
/// or before it notices a container's end, may lose it: `runc init` never ends, or a shim
/// and empty groups remain. hanshu cannot see them, so they are not its fault. Returns their ids.
///
/// # Errors
/// The engine does not answer.
pub(crate) async fn end_lost_containers(
    parent: &str,
    engine: &DockerDaemon,
) -> anyhow::Result<BTreeSet<String>> {
    let mut processes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for group in groups(parent) {
        let pids = fs::read_to_string(Path::new(&group).join("cgroup.procs")).unwrap_or_default();
        let id = group.rsplit('/').next().unwrap_or_default().to_owned();
        processes.entry(id).or_default().extend(pids.lines().map(str::to_owned));
    }
    for (_, command) in shims() {
        let id = command.split(" -id ").nth(1).and_then(|rest| rest.split(' ').next());
        processes.entry(id.unwrap_or_default().to_owned()).or_default();
    }
    // Listed after the groups: whatever has a group by now was known to the engine earlier.
    let known = engine.docker(&["ps", "-aq", "--no-trunc"]).await?;
    let waits = |pid: &String| command(pid).ends_with("runc init");
    processes.retain(|id, pids| !known.contains(id.as_str()) && pids.iter().all(waits));
    let shims = shims();
    for (id, pids) in &processes {
        let shims = shims.iter().filter(|(_, command)| command.contains(id.as_str()));
        for pid in pids.iter().chain(shims.map(|(pid, _)| pid)) {
            if let Ok(pid) = pid.parse() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    let gone: BTreeSet<String> = processes.into_keys().collect();
    remove(parent, &gone);
    Ok(gone)
}

/// Process id and command line of every containerd shim.
pub(crate) fn shims() -> Vec<(String, String)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = processes.map(|entry| {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let command = command(&pid);
        (pid, command)
    });
    all.filter(|(_, command)| command.contains("containerd-shim")).collect()
}

/// A process' command line; empty if the process has ended.
pub(crate) fn command(pid: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// Removes the groups of these containers once they are empty.
fn remove(parent: &str, ids: &BTreeSet<String>) {
    for _ in 0..20 {
        let ours = |group: &String| ids.iter().any(|id| group.ends_with(id.as_str()));
        let left: Vec<_> = groups(parent).into_iter().filter(ours).collect();
        if left.iter().filter(|group| fs::remove_dir(group).is_err()).count() == 0 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Removes all of the soak's control groups that are empty.
pub(crate) fn remove_all(parent: &str) {
    for group in groups(parent) {
        let _ = fs::remove_dir(group);
    }
    for root in roots(parent) {
        let _ = fs::remove_dir(root);
    }
}
