//! A server with a neighbour that must not notice, and the look around after the attack.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::world::{Answer, PYTHON, World};

/// Attacks one after the other: two at once would measure each other.
static TURN: Mutex<()> = Mutex::const_new(());
/// Who runs the server in the last column: an id that nobody has.
const NOBODY: u32 = 65_533;
/// The neighbour's calls before the attack, to compare with.
const QUIET: Duration = Duration::from_millis(300);
/// A neighbour's call must be answered within this. Its limit of time is the function's own 3 s;
/// the rest is this machine's, which does other things too.
const NEIGHBOUR_BOUND: Duration = Duration::from_secs(10);
/// What the server's memory may grow by while it is attacked.
const SERVER_GROWTH_MB: u64 = 256;
/// What is removed is gone within moments; this is the bound.
const GONE_WAIT: Duration = Duration::from_secs(10);
const NEIGHBOUR: &str = "def main_handler(event, context):\n    return event\n";

/// A kind of sandbox, as a column of SECURITY.md's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Containers; the server is root.
    Docker,
    /// Processes; the server is root.
    Root,
    /// Processes; the server is an ordinary user.
    User,
}

impl Column {
    /// All that this machine can show. In CI that is every one.
    pub(crate) fn all() -> Vec<Self> {
        if id() == 0 {
            return vec![Self::Docker, Self::Root, Self::User];
        }
        assert!(std::env::var_os("CI").is_none(), "CI attacks as root");
        eprintln!("not root: what root starts was NOT attacked");
        vec![Self::User]
    }

    /// Whether a control group bounds memory and processors.
    pub(crate) fn has_groups(self) -> bool {
        match self {
            Self::Docker | Self::Root => true,
            Self::User => false,
        }
    }

    fn start(self) -> World {
        match self {
            Self::Docker => World::start("docker"),
            Self::Root => World::start("process"),
            Self::User if id() == 0 => World::start_as(NOBODY, &["--sandbox", "process"], &[]),
            Self::User => World::start("process"),
        }
    }
}

/// A server under attack.
pub(crate) struct Arena {
    pub(crate) column: Column,
    pub(crate) world: World,
    /// When its server was started, as `docker events` takes it.
    since: String,
    server: ServerUsage,
}

/// Memory and open descriptors of a server.
#[derive(Clone, Copy, Debug)]
struct ServerUsage {
    rss_mb: u64,
    descriptors: usize,
}

impl Arena {
    /// Starts a server and the neighbour function, which is warm.
    pub(crate) async fn start(column: Column) -> Self {
        let since = run("date", &["+%s"]).trim().to_owned();
        let world = column.start();
        world.deploy("neighbour", PYTHON, &[("index.py", NEIGHBOUR)]);
        let first = world.invoke("neighbour", "0").await;
        assert_eq!(first.status.as_u16(), 200, "{column:?}: {first:?}");
        let server = ServerUsage::of(world.pid());
        Self { column, world, since, server }
    }

    /// Deploys one Python function: settings beside runtime and handler, and its `index.py`.
    #[track_caller]
    pub(crate) fn python(&self, name: &str, settings: &str, code: &str) {
        self.world.deploy(name, &format!("{PYTHON}{settings}\n"), &[("index.py", code)]);
    }

    /// The node's id, by which everything of it is called.
    pub(crate) fn node(&self) -> String {
        let text = fs::read_to_string(self.world.data.path().join("node")).unwrap();
        text.trim().to_owned()
    }

    /// Attacks, while the neighbour is called without a pause. Prints what it felt.
    pub(crate) async fn attack<T>(&self, what: &str, attack: impl Future<Output = T>) -> T {
        let _turn = TURN.lock().await;
        let calm = AtomicBool::new(false);
        let (before, ()) = tokio::join!(self.neighbour(&calm), async {
            tokio::time::sleep(QUIET).await;
            calm.store(true, Ordering::Relaxed);
        });
        let over = AtomicBool::new(false);
        let (during, attacked) = tokio::join!(self.neighbour(&over), async {
            let attacked = attack.await;
            over.store(true, Ordering::Relaxed);
            attacked
        });
        let server = ServerUsage::of(self.world.pid());
        eprintln!(
            "{what:28} {:7} neighbour: {} calls, p50 {} -> {}, p99 {} -> {}, worst {}; server: {} \
             -> {} MB, {} -> {} descriptors",
            format!("{:?}", self.column),
            during.len(),
            at(&before, 0.5),
            at(&during, 0.5),
            at(&before, 0.99),
            at(&during, 0.99),
            at(&during, 1.0),
            self.server.rss_mb,
            server.rss_mb,
            self.server.descriptors,
            server.descriptors,
        );
        assert!(
            server.rss_mb < self.server.rss_mb + SERVER_GROWTH_MB,
            "{what}: the server grew from {:?} to {server:?}",
            self.server
        );
        attacked
    }

    /// Calls the neighbour until told to stop; what each call took, sorted.
    async fn neighbour(&self, stop: &AtomicBool) -> Vec<Duration> {
        let mut took = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let (event, begun) = (took.len().to_string(), Instant::now());
            let answer = self.world.invoke("neighbour", event.clone()).await;
            let elapsed = begun.elapsed();
            let text = String::from_utf8_lossy(&answer.body);
            assert_eq!((answer.status.as_u16(), &*text), (200, &*event), "{:?}", self.column);
            assert!(elapsed < NEIGHBOUR_BOUND, "{:?}: {elapsed:?}", self.column);
            took.push(elapsed);
        }
        took.sort_unstable();
        took
    }

    /// Stops the server in order and finds nothing of it.
    pub(crate) fn end(mut self) {
        let traces = ServerLeftovers::of(&self, &self.node());
        assert_eq!(self.world.stop(), 0, "{}", self.world.log());
        let until = Instant::now() + GONE_WAIT;
        loop {
            let left = traces.left();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "{:?} left behind: {left:#?}", self.column);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What an attack was answered: the HTTP status, and the fault's own code; 0 where there is none.
pub(crate) fn fault(answer: &Answer) -> (u16, i64) {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = body["statusCode"].as_i64().unwrap_or_default();
    let kind = if answer.status.is_success() { "none" } else { "function" };
    assert_eq!(answer.fault, kind, "{answer:?}");
    (answer.status.as_u16(), code)
}

/// Where things of a server are found.
struct ServerLeftovers {
    docker: bool,
    node: String,
    /// The data folder's name, which nobody else has.
    folder: String,
    run: std::path::PathBuf,
    /// The full ids of all its containers, which are parts of their control groups' paths.
    containers: BTreeSet<String>,
}

impl ServerLeftovers {
    fn of(arena: &Arena, node: &str) -> Self {
        let data = arena.world.data.path();
        let folder = data.file_name().unwrap().to_str().unwrap().to_owned();
        let docker = arena.column == Column::Docker;
        let (label, until) = (format!("label=hanshu={node}"), run("date", &["+%s.%N"]));
        let created = ["events", "--filter", &label, "--filter", "event=create", "--format"];
        let period = ["{{.ID}}", "--since", &arena.since, "--until", until.trim()];
        let containers =
            if docker { run("docker", &[&created[..], &period].concat()) } else { String::new() };
        let containers: BTreeSet<String> = containers.lines().map(Into::into).collect();
        assert_eq!(containers.is_empty(), !docker, "a sandbox was seen while it ran");
        Self { docker, node: node.to_owned(), folder, run: data.join("run"), containers }
    }

    fn left(&self) -> Vec<String> {
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
        look("group", self.groups());
        if id() == 0 {
            let loops = run("losetup", &["-a"]);
            look("loop device", loops.lines().filter(is_ours).map(Into::into).collect());
            let rules = run("iptables", &["-w", "5", "-S"]);
            let ours = rules.lines().filter(|line| line.contains(&self.node));
            look("firewall rule", ours.map(Into::into).collect());
        }
        if self.docker {
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

    fn groups(&self) -> Vec<String> {
        let all = run("find", &["/sys/fs/cgroup", "-type", "d"]);
        let is_ours = |path: &&str| {
            path.contains(&format!("hanshu/{}", self.node))
                || self.containers.iter().any(|id| path.contains(id))
        };
        all.lines().filter(is_ours).map(Into::into).collect()
    }
}

impl ServerUsage {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { rss_mb: kib / 1024, descriptors }
    }
}

/// The value below which this share of the samples is, as text.
fn at(sorted: &[Duration], share: f64) -> String {
    let last = sorted.len().saturating_sub(1);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few thousand")]
    let index = (last as f64 * share).ceil() as usize;
    let millis = sorted.get(index).map_or(0.0, |took| took.as_secs_f64() * 1000.0);
    format!("{millis:.1} ms")
}

/// User id of this process.
pub(crate) fn id() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid()
}

/// Runs a command, which may find nothing; its standard output.
#[track_caller]
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    // `find` meets folders that go away.
    assert!(output.status.success() || program == "find", "{program} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
