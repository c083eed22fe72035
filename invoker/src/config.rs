//! Settings of an invoker.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use hanshu_core::HostProgram;
use serde::{Deserialize, Serialize};

/// The processors that this process may use. Determined once: it takes some twenty system calls, and
/// every function's first call needs it.
pub(crate) fn cores() -> usize {
    static CORES: LazyLock<usize> =
        LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// Settings of an invoker. Times are seconds or milliseconds, as the names say; memory is MiB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InvokerOptions {
    /// Folder for the sandboxes' sockets and logs, `DATA/run`. Absolute. Swept at the start.
    pub run_dir: PathBuf,
    /// MiB that all sandboxes together may be promised; 0 is three quarters of the machine's.
    pub memory_mb: u64,
    /// Sandboxes that may exist at once.
    pub sandboxes_max: u32,
    /// Sandboxes that may start at once on the node, and for one function; 0 is one for each core,
    /// at least two.
    pub starts_max: u32,
    /// Thousandths of a core that one sandbox may use.
    pub cpu_milli: u32,
    /// Seconds that a sandbox stays idle before it is stopped.
    pub keep_alive_s: u64,
    /// Milliseconds of idleness after which a sandbox is frozen; 0 never freezes.
    pub freeze_after_ms: u64,
    /// Milliseconds: once a call has waited this long (or as long as a cold start takes, if that is
    /// less) for a busy function, another sandbox is started.
    pub target_wait_ms: u64,
    /// Calls that may wait for one function's sandboxes.
    pub waiting_max: u32,
    /// Milliseconds that a queued event's attempt waits for a sandbox before it goes back to its
    /// queue.
    pub async_wait_ms: u64,
    /// Milliseconds that a cancelled invocation has from SIGTERM until its sandbox is stopped; its own
    /// time limit ends it earlier.
    pub cancel_grace_ms: u64,
    /// Seconds from the start of a sandbox until its shim must have answered. Loading the function
    /// comes on top and has a limit of its own.
    pub start_timeout_s: u64,
    /// Prewarmed sandboxes of each kind in use (runtime, network, memory) that are kept ready:
    /// sandboxes that are started without a function and that the next cold start takes. 0: none at
    /// all. More are kept while cold starts are frequent.
    pub prewarmed_min: u32,
    /// Prewarmed sandboxes that may exist at once; they also have at most an eighth of `memory_mb`.
    pub prewarmed_max: u32,
    /// The first of the user ids that sandboxes run as, one for each, where the node is root: no other
    /// program may use the `sandboxes_max` ids from here on.
    pub uid_first: u32,
    /// The Python inside sandboxes: an absolute path that every user may run.
    pub python: String,
    /// The Node.js inside sandboxes: an absolute path that every user may run.
    pub node: String,
    /// The value of `TENCENTCLOUD_REGION` in functions.
    pub region: String,
}

impl Default for InvokerOptions {
    fn default() -> Self {
        Self {
            run_dir: PathBuf::from("/var/lib/hanshu/run"),
            memory_mb: 0,
            sandboxes_max: 512,
            starts_max: 0,
            cpu_milli: 1000,
            keep_alive_s: 300,
            freeze_after_ms: 2000,
            target_wait_ms: 20,
            waiting_max: 1000,
            async_wait_ms: 5000,
            cancel_grace_ms: 2000,
            start_timeout_s: 30,
            prewarmed_min: 1,
            prewarmed_max: 16,
            uid_first: 700_000,
            python: "/usr/bin/python3".into(),
            node: "/usr/bin/node".into(),
            region: "local".into(),
        }
    }
}

impl InvokerOptions {
    /// MiB for sandboxes: as set, or three quarters of the machine's.
    pub fn memory_mb(&self) -> u64 {
        if 0 < self.memory_mb {
            return self.memory_mb;
        }
        let machine = std::fs::read_to_string("/proc/meminfo")
            .ok()
            .and_then(|text| machine_memory_mb(&text))
            .unwrap_or(MEMORY_FALLBACK_MB);
        machine * 3 / 4
    }

    /// Starts at once: as set, or one for each core, at least two.
    pub fn starts_max(&self) -> usize {
        match usize::try_from(self.starts_max) {
            Ok(0) | Err(_) => cores().max(2),
            Ok(set) => set,
        }
    }

    /// The path of a program that the platform does not bring: as set, or as its runtime says.
    pub(crate) fn program(&self, program: &HostProgram) -> &str {
        match program.setting {
            Some("python") => &self.python,
            Some("node") => &self.node,
            _ => program.path,
        }
    }

    pub(crate) fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_s)
    }

    pub(crate) fn freeze_after(&self) -> Option<Duration> {
        (0 < self.freeze_after_ms).then(|| Duration::from_millis(self.freeze_after_ms))
    }

    pub(crate) fn target_wait(&self) -> Duration {
        Duration::from_millis(self.target_wait_ms.max(1))
    }

    pub(crate) fn async_wait(&self) -> Duration {
        Duration::from_millis(self.async_wait_ms)
    }

    pub(crate) fn cancel_grace(&self) -> Duration {
        Duration::from_millis(self.cancel_grace_ms)
    }

    pub(crate) fn start_timeout(&self) -> Duration {
        Duration::from_secs(self.start_timeout_s.max(1))
    }
}

/// MiB assumed where the machine's memory is unknown.
const MEMORY_FALLBACK_MB: u64 = 1024;

fn machine_memory_mb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use hanshu_core::RuntimeFamily;

    use super::*;

    #[test]
    fn each_setting_of_a_runtimes_program_is_there_with_its_path() {
        let options =
            InvokerOptions { python: "/p".into(), node: "/n".into(), ..Default::default() };
        let programs = RuntimeFamily::all().filter_map(|family| family.profile().host_program);
        let paths: Vec<_> = programs
            .map(|program| {
                let default = InvokerOptions::default();
                assert_eq!(default.program(&program), program.path, "the default of {program:?}");
                assert_ne!(program.setting.is_some(), options.program(&program) == program.path);
                options.program(&program).to_owned()
            })
            .collect();
        assert_eq!(paths, ["/p", "/n", "/bin/sh"]);
    }

    #[test]
    fn the_machines_memory_is_read_from_meminfo() {
        assert_eq!(machine_memory_mb("MemTotal:       24678400 kB\nMemFree: 1 kB\n"), Some(24100));
        assert_eq!(machine_memory_mb("nothing"), None);
        assert!(0 < InvokerOptions::default().memory_mb());
    }
}
