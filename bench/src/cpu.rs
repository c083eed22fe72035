//! What a set of processes and containers cost: processor time and memory, as the kernel counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// Where control groups of version 1 are, by controller.
const V1: &str = "/sys/fs/cgroup";

/// Who is paid for: a process of the host, and the containers that work for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    pub(crate) processes: Vec<u32>,
    /// Full ids.
    pub(crate) containers: Vec<String>,
}

impl Side {
    /// Processor time of all of it until now.
    ///
    /// # Errors
    /// Where one of them is gone, or its control group cannot be found.
    pub(crate) fn spent(&self) -> anyhow::Result<Duration> {
        let mut sum = Duration::ZERO;
        for pid in &self.processes {
            sum += process(*pid)?;
        }
        for id in &self.containers {
            sum += container(id)?;
        }
        Ok(sum)
    }
}

/// Of all threads, those that ended too.
fn process(pid: u32) -> anyhow::Result<Duration> {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("an unknown form of stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), of which two are cut off here and counting is from one.
    let at = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let used = at(11).zip(at(12)).context("an unknown form of stat")?;
    Ok(Duration::from_secs_f64(crate::wrk::as_f64(used.0 + used.1) / ticks as f64))
}

fn container(id: &str) -> anyhow::Result<Duration> {
    let v1 = group(id, "cpuacct").join("cpuacct.usage");
    if let Ok(text) = fs::read_to_string(&v1) {
        return Ok(Duration::from_nanos(text.trim().parse()?));
    }
    for base in [format!("{V1}/system.slice/docker-{id}.scope"), format!("{V1}/docker/{id}")] {
        if let Ok(text) = fs::read_to_string(Path::new(&base).join("cpu.stat")) {
            let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
            return Ok(Duration::from_micros(usage.context("no usage_usec")?.trim().parse()?));
        }
    }
    anyhow::bail!("the control group of container {id} is not found (looked at {})", v1.display())
}

/// Whether the container is frozen, by its control group.
pub(crate) fn frozen(id: &str) -> bool {
    let v1 = fs::read_to_string(group(id, "freezer").join("freezer.state"));
    if let Ok(state) = v1 {
        return state.trim() == "FROZEN";
    }
    [format!("{V1}/system.slice/docker-{id}.scope"), format!("{V1}/docker/{id}")].iter().any(
        |base| {
            fs::read_to_string(Path::new(base).join("cgroup.events"))
                .is_ok_and(|text| text.lines().any(|line| line == "frozen 1"))
        },
    )
}

fn group(id: &str, controller: &str) -> PathBuf {
    [V1, controller, "docker", id].iter().collect()
}

/// Resident memory in MB: now, and the most since its start.
///
/// # Errors
/// Where the process is gone.
pub(crate) fn memory_mb(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kb = line.with_context(|| format!("no {name} of process {pid}"))?;
        Ok(kb.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}
