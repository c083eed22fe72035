//! What a case must not do to the machine, and what the machine has that a case must not reach.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::{Duration, Instant};

use super::functions::LISTENING_NEIGHBOUR;

/// The port that Go and custom runtimes listen on.
const RUNTIME_PORT: u16 = 28902;
/// What is killed is gone within moments; this is the bound, on a busy machine.
const GONE_WAIT: Duration = Duration::from_secs(30);

/// A process, told from a later one with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Process {
    id: u32,
    started: u64,
}

/// Something on this host that listens on every address.
#[derive(Debug)]
pub(super) struct Listener {
    port: u16,
}

impl Listener {
    pub(super) fn open() -> Self {
        let socket = TcpListener::bind(("0.0.0.0", 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || while socket.accept().is_ok() {});
        Self { port }
    }

    /// Where others may try to reach it.
    pub(super) fn addresses(&self) -> Vec<String> {
        addresses().iter().map(|address| format!("{address}:{}", self.port)).collect()
    }
}

/// This host's IPv4 addresses, loopback aside.
fn addresses() -> Vec<Ipv4Addr> {
    let text = fs::read_to_string("/proc/net/fib_trie").unwrap();
    let lines: Vec<_> = text.lines().collect();
    let mut found: Vec<Ipv4Addr> = lines
        .windows(2)
        .filter(|pair| pair[1].contains("/32 host LOCAL"))
        .filter_map(|pair| pair[0].trim().strip_prefix("|-- ")?.parse().ok())
        .filter(|address: &Ipv4Addr| !address.is_loopback())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Where the neighbour that listens may be.
pub(super) fn neighbours(backend: &str) -> Vec<String> {
    if backend != "docker" {
        return vec![format!("127.0.0.1:{RUNTIME_PORT}")];
    }
    let run = |args: &[&str]| {
        let output = Command::new("docker").args(args).output().unwrap();
        assert!(output.status.success(), "docker {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let label = format!("label=hanshu.function=default/{LISTENING_NEIGHBOUR}");
    let ids = run(&["ps", "-q", "--filter", &label]);
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let found: Vec<_> = ids
        .split_whitespace()
        .map(|id| format!("{}:{RUNTIME_PORT}", run(&["inspect", "--format", format, id]).trim()))
        .collect();
    assert!(!found.is_empty(), "the neighbour has no container");
    found
}

pub(super) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// A process as its sandbox sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) id: u32,
    /// The sandbox: another server may give its sandboxes the same user.
    pub(super) space: std::path::PathBuf,
}

/// Processes of that user inside of sandboxes.
pub(super) fn sandboxed(uid: u32) -> BTreeMap<Process, Inside> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let words = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>()
        };
        let (ids, users) = (words("NSpid:"), words("Uid:"));
        let Ok(space) = fs::read_link(entry.path().join("ns/pid")) else { continue };
        if let (true, [_, .., inner], Some(started)) = (users.contains(&uid), &ids[..], started(id))
        {
            found.insert(Process { id, started }, Inside { id: *inner, space });
        }
    }
    found
}

/// Those of them that live after a while.
pub(super) async fn left(processes: impl Iterator<Item = Process> + Clone) -> Vec<Process> {
    let until = Instant::now() + GONE_WAIT;
    loop {
        let left: Vec<_> =
            processes.clone().filter(|it| started(it.id) == Some(it.started)).collect();
        if left.is_empty() || until < Instant::now() {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// When a process was started, in ticks since the machine was; `None`: it is gone, or dead.
fn started(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    (*fields.first()? != "Z").then_some(())?;
    fields.get(19)?.parse().ok()
}

/// MiB that a process has in memory.
pub(super) fn memory_mb(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
    kib / 1024
}
