//! A server with a neighbour that must not notice, and the look around after the attacks.
//!
//! Tests that run at the same time share a server of each column; the last one that leaves it stops
//! it and looks around. With `--test-threads=1` each test has servers of its own, and nobody else's
//! attack is in what is printed of the neighbour.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::Mutex;

use crate::leftovers::{CreatedContainers, ServerLeftovers};
use crate::world::{Answer, PYTHON, World};

/// Who runs the server in the last column: an id that nobody has.
const NOBODY: u32 = 65_533;
/// The neighbour's calls before the attack, to compare with.
const QUIET_CALLS: usize = 50;
/// The neighbour function's own time limit. The machine does other things, too.
const NEIGHBOUR_S: u64 = 8;
/// A neighbour's call must be answered within this.
const NEIGHBOUR_BOUND: Duration = Duration::from_secs(10);
/// What the server's memory may grow by during an attack.
const SERVER_GROWTH_MB: u64 = 256;
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

/// The servers that run now, by column. Locked while one is started.
static SERVERS: [Mutex<Weak<SharedServer>>; 3] = [const { Mutex::const_new(Weak::new()) }; 3];
/// Counts what must have a name of its own.
static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Column {
    /// All that this machine can show. In CI that is every one. Each test begins with another one, so
    /// that those that run at the same time attack different servers.
    pub(crate) fn all() -> Vec<Self> {
        if id() == 0 {
            let mut all = vec![Self::Docker, Self::Root, Self::User];
            all.rotate_left(NEXT.fetch_add(1, Ordering::Relaxed) % 3);
            return all;
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
        let world = match self {
            Self::Docker => World::start("docker"),
            Self::Root => World::start("process"),
            Self::User if id() == 0 => World::start_as(NOBODY, &["--sandbox", "process"], &[]),
            Self::User => World::start("process"),
        };
        world.without_kept_connections()
    }
}

/// A test's part of a server under attack.
pub(crate) struct Arena {
    pub(crate) column: Column,
    shared: Arc<SharedServer>,
    /// Its functions' names end with it.
    number: usize,
    functions: Vec<String>,
}

/// A server, and what tests that attack it share.
struct SharedServer {
    world: World,
    /// In the column of containers.
    containers: Option<CreatedContainers>,
    /// Attacks on one server one after the other: two at once would measure each other.
    turn: Mutex<()>,
}

/// Memory and open descriptors of a server.
#[derive(Clone, Copy, Debug)]
struct ServerUsage {
    rss_mb: u64,
    descriptors: usize,
}

impl SharedServer {
    async fn start(column: Column) -> Self {
        let since = run("date", &["+%s"]).trim().to_owned();
        let world = column.start();
        let settings = format!("{PYTHON}timeout_s = {NEIGHBOUR_S}\n");
        world.deploy("neighbour", &settings, &[("index.py", NEIGHBOUR)]);
        let first = world.invoke("neighbour", "0").await;
        assert_eq!(first.status.as_u16(), 200, "{column:?}: {first:?}");
        let containers = (column == Column::Docker).then(|| CreatedContainers::of(&world, &since));
        Self { world, containers, turn: Mutex::const_new(()) }
    }

    /// Stops the server in order and finds nothing of it.
    fn end(mut self, column: Column) {
        let leftovers = ServerLeftovers::of(column, &self.world);
        assert_eq!(self.world.stop(), 0, "{}", self.world.log());
        leftovers.wait_until_gone(self.containers.take());
    }
}

impl Arena {
    /// Starts a server and the neighbour function, which is warm, or joins one that runs.
    pub(crate) async fn start(column: Column) -> Self {
        // Whoever comes meanwhile waits for this server.
        let mut running = SERVERS[column as usize].lock().await;
        let shared = match running.upgrade() {
            Some(shared) => shared,
            None => Arc::new(SharedServer::start(column).await),
        };
        *running = Arc::downgrade(&shared);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { column, shared, number, functions: Vec::new() }
    }

    pub(crate) fn world(&self) -> &World {
        &self.shared.world
    }

    /// What the server calls a function of this test.
    pub(crate) fn name(&self, function: &str) -> String {
        format!("{function}-{}", self.number)
    }

    /// Deploys one Python function: settings beside runtime and handler, and its `index.py`.
    #[track_caller]
    pub(crate) fn python(&mut self, name: &str, settings: &str, code: &str) {
        self.deploy(name, &format!("{PYTHON}{settings}\n"), &[("index.py", code)]);
    }

    /// Deploys one function from these files.
    #[track_caller]
    pub(crate) fn deploy(&mut self, name: &str, settings: &str, files: &[(&str, &str)]) {
        let name = self.name(name);
        self.world().deploy(&name, settings, files);
        self.functions.push(name);
    }

    /// Calls a function of this test.
    pub(crate) async fn invoke(&self, function: &str, event: impl Into<reqwest::Body>) -> Answer {
        self.world().invoke(&self.name(function), event).await
    }

    /// Queues a call of a function of this test; its end.
    pub(crate) async fn end_of_queued(&self, function: &str, event: &'static str) -> Value {
        let id = self.world().accept(&self.name(function), event).await;
        self.world().end_of(&id).await
    }

    /// The node's id, by which everything of it is called.
    pub(crate) fn node(&self) -> String {
        node(self.world())
    }

    /// Attacks, while the neighbour is called without a pause. Prints what it felt.
    pub(crate) async fn attack<T>(&self, what: &str, attack: impl Future<Output = T>) -> T {
        let _turn = self.shared.turn.lock().await;
        let begin = ServerUsage::of(self.world().pid());
        let before = self.neighbour(|calls| calls < QUIET_CALLS).await;
        let over = AtomicBool::new(false);
        let (during, attacked) =
            tokio::join!(self.neighbour(|_| !over.load(Ordering::Relaxed)), async {
                let attacked = attack.await;
                over.store(true, Ordering::Relaxed);
                attacked
            });
        let server = ServerUsage::of(self.world().pid());
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
            begin.rss_mb,
            server.rss_mb,
            begin.descriptors,
            server.descriptors,
        );
        assert!(
            server.rss_mb < begin.rss_mb + SERVER_GROWTH_MB,
            "{what}: the server grew from {begin:?} to {server:?}"
        );
        attacked
    }

    /// Calls the neighbour as long as told, by the calls so far; what each took, sorted.
    async fn neighbour(&self, go_on: impl Fn(usize) -> bool) -> Vec<Duration> {
        let mut took = Vec::new();
        while go_on(took.len()) {
            let (event, begun) = (took.len().to_string(), Instant::now());
            let answer = self.world().invoke("neighbour", event.clone()).await;
            let elapsed = begun.elapsed();
            let text = String::from_utf8_lossy(&answer.body);
            assert_eq!((answer.status.as_u16(), &*text), (200, &*event), "{:?}", self.column);
            assert!(elapsed < NEIGHBOUR_BOUND, "{:?}: {elapsed:?}", self.column);
            took.push(elapsed);
        }
        took.sort_unstable();
        took
    }

    /// Leaves the server. The last one stops it in order and finds nothing of it, nor of what others
    /// had there.
    pub(crate) async fn end(self) {
        for function in &self.functions {
            self.world().ok(&["delete", function]);
        }
        let running = SERVERS[self.column as usize].lock().await;
        let last = Arc::into_inner(self.shared);
        drop(running);
        if let Some(shared) = last {
            shared.end(self.column);
        }
    }
}

/// The id of a server's node.
pub(crate) fn node(world: &World) -> String {
    let text = fs::read_to_string(world.data.path().join("node")).unwrap();
    text.trim().to_owned()
}

/// What an attack was answered: the HTTP status, and the fault's own code; 0 where there is none.
pub(crate) fn fault(answer: &Answer) -> (u16, i64) {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = body["statusCode"].as_i64().unwrap_or_default();
    let kind = if answer.status.is_success() { "none" } else { "function" };
    assert_eq!(answer.fault, kind, "{answer:?}");
    (answer.status.as_u16(), code)
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
