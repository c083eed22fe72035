//! Samples of what the servers use while they run: memory, descriptors, control groups, containers,
//! mounts, files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::cgroups::groups;
use crate::event_log::EventLog;
use crate::testbed::Testbed;

/// Rows of the printed table.
const ROWS: usize = 12;
/// Samples taken in one soak.
const SAMPLES: u32 = 240;

/// What one server's process and data folder use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessUsage {
    pub(crate) rss_mb: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) files: u64,
}

/// What both servers and the engine use at one moment.
#[derive(Clone, Debug)]
pub(crate) struct UsageSample {
    pub(crate) at: Duration,
    pub(crate) servers: Vec<ProcessUsage>,
    pub(crate) groups: u64,
    pub(crate) mounts: u64,
    pub(crate) containers: Option<u64>,
}

/// Takes samples until `stop` is cancelled.
pub(crate) async fn watch(
    testbed: Arc<Testbed>,
    event_log: Arc<EventLog>,
    length: Duration,
    stop: CancellationToken,
) -> Vec<UsageSample> {
    let pause = (length / SAMPLES).max(Duration::from_millis(500));
    let mut samples = Vec::new();
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        samples.push(take_sample(&testbed, event_log.age()).await);
    }
    samples
}

/// Takes one sample. A server or an engine that is being restarted is left out.
pub(crate) async fn take_sample(testbed: &Testbed, at: Duration) -> UsageSample {
    let mut servers = Vec::new();
    for site in &testbed.sites {
        let pid = site.server.try_lock().ok().and_then(|server| server.pid());
        let mut usage = pid.map(process_usage).unwrap_or_default();
        usage.files = count_files(&site.data);
        servers.push(usage);
    }
    let containers = match testbed.engine.try_lock() {
        Ok(engine) => engine.docker(&["ps", "-aq"]).await.ok(),
        Err(_) => None,
    };
    let containers = containers.map(|listed| listed.lines().count() as u64);
    UsageSample {
        at,
        servers,
        groups: groups(&testbed.cgroup).len() as u64,
        mounts: mounts().len() as u64,
        containers,
    }
}

/// A process' memory, descriptors and threads; zeroes if it has ended.
pub(crate) fn process_usage(pid: u32) -> ProcessUsage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse::<u64>().ok()).unwrap_or_default()
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as u64;
    ProcessUsage {
        rss_mb: number("VmRSS:") / 1024,
        descriptors,
        threads: number("Threads:"),
        files: 0,
    }
}

/// All mounts in the namespace.
pub(crate) fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn count_files(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            1 + if is_dir { count_files(&entry.path()) } else { 0 }
        })
        .sum()
}

/// The samples as a table of at most [`ROWS`] rows, each the median of a part of the run.
pub(crate) fn table(samples: &[UsageSample]) -> String {
    let mut text = String::from(
        "   at s | embedded: RSS MiB  fds  threads  files | services: RSS MiB  fds  threads  files \
         | containers  cgroups  mounts\n",
    );
    for part in samples.chunks(samples.len().div_ceil(ROWS).max(1)) {
        let at = part.last().map(|sample| sample.at.as_secs()).unwrap_or_default();
        let _ = write!(text, "{at:>7}");
        for server in 0..crate::fault_plan::SERVER_COUNT {
            let of = |get: fn(&ProcessUsage) -> u64| {
                median(part.iter().filter_map(|s| s.servers.get(server).map(get)))
            };
            let (rss, fds) = (of(|usage| usage.rss_mb), of(|usage| usage.descriptors));
            let (threads, files) = (of(|usage| usage.threads), of(|usage| usage.files));
            let _ = write!(text, " | {rss:>17} {fds:>4} {threads:>8} {files:>6}");
        }
        let containers = median(part.iter().filter_map(|sample| sample.containers));
        let groups = median(part.iter().map(|sample| sample.groups));
        let mounts = median(part.iter().map(|sample| sample.mounts));
        let _ = writeln!(text, " | {containers:>10} {groups:>8} {mounts:>7}");
    }
    text
}

/// The median; 0 if there are no values.
pub(crate) fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Reports what grew in the second half of a run, in which no server is killed: the median of its
/// last third may exceed that of its first third by a quarter and a constant.
pub(crate) fn check_growth(samples: &[UsageSample], event_log: &EventLog) {
    let half = samples.split_at(samples.len() / 2).1;
    let third = half.len() / 3;
    let (Some(first), Some(last)) = (half.get(..third), half.get(half.len() - third..)) else {
        return;
    };
    let check = |what: &str, get: &dyn Fn(&UsageSample) -> Option<u64>, slack: u64| {
        let before = median(first.iter().filter_map(get));
        let after = median(last.iter().filter_map(get));
        if before + before / 4 + slack < after {
            event_log.report_violation(format!("{what} grew from {before} to {after}"));
        }
    };
    for server in 0..crate::fault_plan::SERVER_COUNT {
        let name = crate::fault_plan::server_name(server);
        let of = |get: fn(&ProcessUsage) -> u64| {
            move |sample: &UsageSample| {
                sample.servers.get(server).map(get).filter(|value| *value != 0)
            }
        };
        check(&format!("RSS (MiB) of {name}"), &of(|usage| usage.rss_mb), 24);
        check(&format!("descriptors of {name}"), &of(|usage| usage.descriptors), 16);
        check(&format!("threads of {name}"), &of(|usage| usage.threads), 8);
        check(&format!("files of {name}"), &of(|usage| usage.files), 40);
    }
    check("containers", &|sample| sample.containers, 8);
    check("cgroups", &|sample| Some(sample.groups), 80);
    check("mounts", &|sample| Some(sample.mounts), 24);
}
