//! What the servers hold while they run: memory, descriptors, control groups, containers, mounts,
//! files.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::chronicle::Chronicle;
use crate::field::Field;
use crate::groups::groups;

/// Rows of the table.
const ROWS: usize = 12;
/// Samples of a run.
const SAMPLES: u32 = 240;

/// One look at one server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) rss_mb: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) files: u64,
}

/// One look at everything.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) servers: Vec<Held>,
    pub(crate) groups: u64,
    pub(crate) mounts: u64,
    pub(crate) containers: Option<u64>,
}

/// Looks every so often until `stop`.
pub(crate) async fn watch(
    field: Arc<Field>,
    chronicle: Arc<Chronicle>,
    length: Duration,
    stop: CancellationToken,
) -> Vec<Sample> {
    let pause = (length / SAMPLES).max(Duration::from_millis(500));
    let mut samples = Vec::new();
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        samples.push(look(&field, chronicle.age()).await);
    }
    samples
}

/// One look. What is just being started or broken is not waited for.
pub(crate) async fn look(field: &Field, at: Duration) -> Sample {
    let mut servers = Vec::new();
    for site in &field.sites {
        let pid = site.server.try_lock().ok().and_then(|server| server.pid());
        let mut held = pid.map(of_process).unwrap_or_default();
        held.files = count_files(&site.data);
        servers.push(held);
    }
    let containers = match field.engine.try_lock() {
        Ok(engine) => engine.docker(&["ps", "-aq"]).await.ok(),
        Err(_) => None,
    };
    let containers = containers.map(|listed| listed.lines().count() as u64);
    Sample {
        at,
        servers,
        groups: groups(&field.cgroup).len() as u64,
        mounts: mounts().len() as u64,
        containers,
    }
}

/// A process' memory, descriptors and threads; zeroes if it is gone.
pub(crate) fn of_process(pid: u32) -> Held {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse::<u64>().ok()).unwrap_or_default()
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as u64;
    Held { rss_mb: number("VmRSS:") / 1024, descriptors, threads: number("Threads:"), files: 0 }
}

/// Everything that is mounted in the cage.
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

/// The samples as a table of at most a dozen rows, each the median of its part of the run.
pub(crate) fn table(samples: &[Sample]) -> String {
    let mut text = String::from(
        "   at s | embedded: RSS MiB  fds  threads  files | services: RSS MiB  fds  threads  files \
         | containers  cgroups  mounts\n",
    );
    for part in samples.chunks(samples.len().div_ceil(ROWS).max(1)) {
        let at = part.last().map(|sample| sample.at.as_secs()).unwrap_or_default();
        let _ = write!(text, "{at:>7}");
        for world in 0..crate::plan::WORLDS {
            let of = |get: fn(&Held) -> u64| {
                median(part.iter().filter_map(|s| s.servers.get(world).map(get)))
            };
            let (rss, fds) = (of(|held| held.rss_mb), of(|held| held.descriptors));
            let (threads, files) = (of(|held| held.threads), of(|held| held.files));
            let _ = write!(text, " | {rss:>17} {fds:>4} {threads:>8} {files:>6}");
        }
        let containers = median(part.iter().filter_map(|sample| sample.containers));
        let groups = median(part.iter().map(|sample| sample.groups));
        let mounts = median(part.iter().map(|sample| sample.mounts));
        let _ = writeln!(text, " | {containers:>10} {groups:>8} {mounts:>7}");
    }
    text
}

/// The middle one; 0 of none.
pub(crate) fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// What grew over the second half of a run, in which no server was started: the medians of its
/// first and its last third, with what is allowed.
pub(crate) fn grown(samples: &[Sample], chronicle: &Chronicle) {
    let half = samples.split_at(samples.len() / 2).1;
    let third = half.len() / 3;
    let (Some(first), Some(last)) = (half.get(..third), half.get(half.len() - third..)) else {
        return;
    };
    let check = |what: &str, get: &dyn Fn(&Sample) -> Option<u64>, slack: u64| {
        let before = median(first.iter().filter_map(get));
        let after = median(last.iter().filter_map(get));
        if before + before / 4 + slack < after {
            chronicle.wrong(format!("{what} grew from {before} to {after}"));
        }
    };
    for world in 0..crate::plan::WORLDS {
        let name = crate::plan::name(world);
        let of = |get: fn(&Held) -> u64| {
            move |sample: &Sample| sample.servers.get(world).map(get).filter(|value| *value != 0)
        };
        check(&format!("RSS (MiB) of {name}"), &of(|held| held.rss_mb), 24);
        check(&format!("descriptors of {name}"), &of(|held| held.descriptors), 16);
        check(&format!("threads of {name}"), &of(|held| held.threads), 8);
        check(&format!("files of {name}"), &of(|held| held.files), 40);
    }
    check("containers", &|sample| sample.containers, 8);
    check("cgroups", &|sample| Some(sample.groups), 80);
    check("mounts", &|sample| Some(sample.mounts), 24);
}
