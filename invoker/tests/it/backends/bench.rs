//! A bench for sandboxes: makes what the launcher makes, and runs a shell script as the runtime.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hanshu_core::{FunctionId, InstanceId, NodeId, RuntimeFamily};
use hanshu_invoker::{NetworkAccess, Sandbox, SandboxBackend, SandboxOwner, SandboxSpec};
use hanshu_runtimes::wire::{
    ExitedMessage, FrameHeader, FrameKind, HEADER_LEN, InitMessage, RuntimeAdapter, StartMessage,
};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tokio_util::task::TaskTracker;

/// Everything here ends within milliseconds or seconds; this is for ill machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A node: its folders and its name.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) tasks: TaskTracker,
    runtime_dir: PathBuf,
    uids: AtomicU32,
}

/// A sandbox whose process 1 has said hello.
pub(crate) struct Running {
    pub(crate) sandbox: Box<dyn Sandbox>,
    pub(crate) spec: SandboxSpec,
    control: UnixStream,
    output: File,
}

/// The test program that is `isolate` and `shim`, built once.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("HANSHU_TEST_PROGRAM") {
            return path.into();
        }
        let name = "shim-under-test";
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "hanshu-runtimes", "--bin", name])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .unwrap();
        assert!(built.success());
        let tests = std::env::current_exe().unwrap();
        tests.parent().and_then(Path::parent).unwrap().join(name)
    })
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Node {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let runtime_dir =
            hanshu_runtimes::runtime_dir::install(&dir.path().join("runtime"), program()).unwrap();
        let id = format!("test-{}", &InstanceId::new().to_string()[..8]).parse().unwrap();
        fs::create_dir_all(dir.path().join("code")).unwrap();
        fs::write(dir.path().join("code/index.py"), "x = 1\n").unwrap();
        // Tests run side by side, and the kernel counts some things by user.
        static NEXT_UIDS: AtomicU32 = AtomicU32::new(600_000);
        let uids = AtomicU32::new(NEXT_UIDS.fetch_add(100, Ordering::Relaxed));
        Self { id, dir, tasks: TaskTracker::new(), runtime_dir, uids }
    }

    /// The first of twenty user ids that nobody else uses here.
    pub(crate) fn spare_uids(&self) -> u32 {
        self.uids.load(Ordering::Relaxed) + 50
    }

    pub(crate) fn runtime_dir(&self) -> PathBuf {
        self.runtime_dir.clone()
    }

    pub(crate) fn spec(&self, family: RuntimeFamily, network: NetworkAccess) -> SandboxSpec {
        let instance = InstanceId::new();
        let uid = if is_root() {
            self.uids.fetch_add(1, Ordering::Relaxed)
        } else {
            nix::unistd::geteuid().as_raw()
        };
        SandboxSpec {
            instance,
            node: self.id.clone(),
            whose: SandboxOwner::Function {
                function: FunctionId {
                    namespace: "default".parse().unwrap(),
                    name: "hello".parse().unwrap(),
                },
                version: "$LATEST".parse().unwrap(),
                code_dir: self.dir.path().join("code"),
            },
            family,
            memory_mb: 128,
            cpu_milli: 1000,
            network,
            pids_max: 64,
            open_files_max: 1024,
            uid,
            run_dir: self.dir.path().join("run").join(instance.to_string()),
        }
    }

    /// Starts a sandbox and waits for its shim.
    pub(crate) async fn start(&self, backend: &dyn SandboxBackend, spec: SandboxSpec) -> Running {
        let (listener, output) = make_run_dir(&spec);
        let sandbox = backend.start(&spec).await.unwrap();
        let mut control = accept(&listener).await;
        let (kind, _) = read_frame(&mut control);
        assert_eq!(kind, FrameKind::Hello);
        Running { sandbox, spec, control, output }
    }

    /// Starts one with the most network there is and runs a script in it to its end.
    pub(crate) async fn run(
        &self,
        backend: &dyn SandboxBackend,
        script: &str,
    ) -> (ExitedMessage, String) {
        let spec = self.spec(RuntimeFamily::Python, backend.default_network(RuntimeFamily::Python));
        let mut running = self.start(backend, spec).await;
        let ended = running.run(script);
        running.sandbox.stop().await;
        ended
    }
}

impl Running {
    /// Starts a script as the runtime.
    pub(crate) fn begin(&mut self, script: &str) {
        let init = InitMessage {
            adapter: RuntimeAdapter::Direct,
            cwd: "/var/user".into(),
            handler: "index.main".into(),
            function_name: "hello".into(),
            function_version: "$LATEST".into(),
            namespace: "default".into(),
            memory_mb: self.spec.memory_mb,
            timeout_ms: 3000,
            init_timeout_ms: 65000,
            user_env: BTreeMap::new(),
            port: 28902,
        };
        let path = "/usr/local/bin:/usr/bin:/bin".to_owned();
        let start = StartMessage {
            argv: ["/bin/bash", "-c", script].map(str::to_owned).to_vec(),
            env: BTreeMap::from([("PATH".to_owned(), path)]),
            init,
        };
        let body = serde_json::to_vec(&start).unwrap();
        let header = FrameHeader::new(FrameKind::Start, 0, body.len()).unwrap();
        self.control.write_all(&header.encode()).unwrap();
        self.control.write_all(&body).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> (ExitedMessage, String) {
        let (kind, body) = read_frame(&mut self.control);
        assert_eq!(kind, FrameKind::Exited);
        (serde_json::from_slice(&body).unwrap(), self.said())
    }

    pub(crate) fn run(&mut self, script: &str) -> (ExitedMessage, String) {
        self.begin(script);
        self.ended()
    }

    /// What it has written since the last time, without waiting.
    pub(crate) fn said(&mut self) -> String {
        let mut text = Vec::new();
        let mut bytes = [0; 65536];
        while let Ok(len @ 1..) = self.output.read(&mut bytes) {
            text.extend_from_slice(&bytes[..len]);
        }
        String::from_utf8(text).unwrap()
    }

    /// Waits until it has written something that contains `text`.
    pub(crate) async fn says(&mut self, text: &str) {
        let mut said = String::new();
        let since = Instant::now();
        while !said.contains(text) {
            assert!(since.elapsed() < PATIENCE, "it said {said:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
            said += &self.said();
        }
    }
}

/// What the launcher makes: sockets and FIFO, the sandbox's own.
fn make_run_dir(spec: &SandboxSpec) -> (UnixListener, File) {
    fs::create_dir_all(&spec.run_dir).unwrap();
    let [control, data, out] = ["control.sock", "data.sock", "out"].map(|n| spec.run_dir.join(n));
    let listener = UnixListener::bind(&control).unwrap();
    // Nobody connects here: the runtime is a script.
    drop(UnixListener::bind(&data).unwrap());
    nix::unistd::mkfifo(&out, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let output = options.open(&out).unwrap();
    for path in [&spec.run_dir, &control, &data, &out] {
        chown(path, Some(spec.uid), None).unwrap();
    }
    (listener, output)
}

async fn accept(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let since = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(_) => assert!(since.elapsed() < PATIENCE, "the shim does not connect"),
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

fn read_frame(stream: &mut UnixStream) -> (FrameKind, Vec<u8>) {
    let mut bytes = [0; HEADER_LEN];
    stream.read_exact(&mut bytes).unwrap();
    let header = FrameHeader::decode(&bytes).unwrap();
    let mut body = vec![0; header.body_len()];
    stream.read_exact(&mut body).unwrap();
    (header.kind, body)
}
