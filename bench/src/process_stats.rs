//! Processor time, memory and freezer state of processes and containers, from the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

/// The control group hierarchies of version 1, by controller.
const V1: &str = "/sys/fs/cgroup";

/// What is measured: processes of the host, and the containers that work for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeasuredProcesses {
    pub(crate) processes: Vec<u32>,
    /// Full container ids.
    pub(crate) containers: Vec<String>,
}

impl MeasuredProcesses {
    /// Processor time of all of them so far.
    ///
    /// # Errors
    /// If one of them has ended, or its control group is not found.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
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

/// Of all threads, including those that have ended.
fn process(pid: u32) -> anyhow::Result<Duration> {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("an unknown form of stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), counted from one; the first two are cut off here.
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

/// Whether the container's control group is frozen.
pub(crate) fn is_frozen(id: &str) -> bool {
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

/// Resident memory of a process, now and at its peak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResidentMemory {
    pub(crate) now_mb: f64,
    pub(crate) peak_mb: f64,
}

/// Reads the resident memory of a process.
///
/// # Errors
/// If the process has ended.
pub(crate) fn resident_memory(pid: u32) -> anyhow::Result<ResidentMemory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kb = line.with_context(|| format!("no {name} of process {pid}"))?;
        Ok(kb.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    };
    Ok(ResidentMemory { now_mb: field("VmRSS:")?, peak_mb: field("VmHWM:")? })
}
