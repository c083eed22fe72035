//! What a server that has ended must not leave: processes, mounts, control groups, containers, rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::Column;
use crate::arena::{id, node, run};
use crate::world::World;

/// What is removed is gone within moments; this is the bound, on a busy machine.
const GONE_WAIT: Duration = Duration::from_secs(30);

/// Where things of a server are found.
#[derive(Debug)]
pub(crate) struct ServerLeftovers {
    column: Column,
    node: String,
    /// The data folder's name, which nobody else has.
    folder: String,
    run: PathBuf,
}

impl ServerLeftovers {
    pub(crate) fn of(column: Column, world: &World) -> Self {
        let data = world.data.path();
        let folder = data.file_name().unwrap().to_str().unwrap().to_owned();
        Self { column, node: node(world), folder, run: data.join("run") }
    }

    /// Waits until nothing of the server, which has ended, is there any more.
    pub(crate) fn wait_until_gone(&self, containers: Option<CreatedContainers>) {
        let containers = containers.map(CreatedContainers::all).unwrap_or_default();
        let is_docker = self.column == Column::Docker;
        assert_eq!(containers.is_empty(), !is_docker, "a sandbox was seen while it ran");
        let until = Instant::now() + GONE_WAIT;
        loop {
            let left = self.left(&containers);
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "{:?} left behind: {left:#?}", self.column);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn left(&self, containers: &BTreeSet<String>) -> Vec<String> {
        let mut left = Vec::new();
        let mut look = |what: &str, found: Vec<String>| {
            left.extend(found.into_iter().map(|each| format!("{what} {each}")));
        };
        let is_ours = |line: &&str| line.contains(&self.folder);
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        look("mount", mounts.lines().filter(is_ours).map(Into::into).collect());
        let folders = fs::read_dir(&self.run).into_iter().flatten();
        look("folder", folders.map(|entry| format!("{:?}", entry.unwrap().path())).collect());
        look("process", self.processes());
        look("group", groups(&self.node, containers));
        if id() == 0 {
            let loops = run("losetup", &["-a"]);
            look("loop device", loops.lines().filter(is_ours).map(Into::into).collect());
            let rules = run("iptables", &["-w", "5", "-S"]);
            let ours = rules.lines().filter(|line| line.contains(&self.node));
            look("firewall rule", ours.map(Into::into).collect());
        }
        if self.column == Column::Docker {
            let label = format!("label=hanshu={}", self.node);
            for (what, list) in [("container", ["ps", "-aq"]), ("network", ["network", "ls"])] {
                let found = run("docker", &[&list[..], &["--filter", &label]].concat());
                look(
                    what,
                    found
                        .lines()
                        .filter(|line| !line.starts_with("NETWORK"))
                        .map(Into::into)
                        .collect(),
                );
            }
        }
        left
    }

    /// Those that have something of the data folder mounted, or were started from it.
    fn processes(&self) -> Vec<String> {
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let ours = all.filter(|path| {
            let text = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default();
            let elsewhere = fs::read_link(path.join("ns/mnt")).is_ok_and(|space| space != own);
            let started = fs::read_link(path.join("exe")).unwrap_or_default();
            (elsewhere && text("mountinfo").contains(&self.folder))
                || started.to_string_lossy().contains(&self.folder)
        });
        ours.map(|path| path.display().to_string()).collect()
    }
}

/// The control groups of a node, and of these containers.
fn groups(node: &str, containers: &BTreeSet<String>) -> Vec<String> {
    let all = run("find", &["/sys/fs/cgroup", "-type", "d"]);
    let is_ours = |path: &&str| {
        path.contains(&format!("hanshu/{node}")) || containers.iter().any(|id| path.contains(id))
    };
    all.lines().filter(is_ours).map(Into::into).collect()
}

/// Follows which containers a server creates. The engine remembers the last 256 events only, its own
/// and everybody's.
#[derive(Debug)]
pub(crate) struct CreatedContainers {
    events: Child,
    file: PathBuf,
}

impl CreatedContainers {
    /// Of the server that was started at `since`, as the engine writes times.
    pub(crate) fn of(world: &World, since: &str) -> Self {
        let file = world.data.path().join("containers");
        let label = format!("label=hanshu={}", node(world));
        let events = Command::new("docker")
            .args(["events", "--filter", &label, "--filter", "event=create"])
            .args(["--format", "{{.ID}}", "--since", since])
            .stdout(fs::File::create(&file).unwrap())
            .spawn()
            .unwrap();
        Self { events, file }
    }

    /// The full ids of all, which are parts of their control groups' paths.
    fn all(self) -> BTreeSet<String> {
        fs::read_to_string(&self.file).unwrap().lines().map(Into::into).collect()
    }
}

impl Drop for CreatedContainers {
    fn drop(&mut self) {
        let _ = self.events.kill();
        let _ = self.events.wait();
    }
}
