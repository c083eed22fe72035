//! A test bench for sandboxes: makes what the launcher makes, and runs a shell script as the runtime.

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
use hanshu_invoker::{
    CODE_DIR, NetworkAccess, Sandbox, SandboxBackend, SandboxMount, SandboxOwner, SandboxSpec,
    image_reference,
};
use hanshu_runtimes::wire::{
    ExitedMessage, FrameHeader, FrameKind, HEADER_LEN, InitMessage, RuntimeAdapter, StartMessage,
};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tokio_util::task::TaskTracker;

/// Limit of every wait here, each of which takes milliseconds or seconds on an idle machine.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(60);

/// A node: its folders and its id.
pub(crate) struct BenchNode {
    pub(crate) id: NodeId,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) tasks: TaskTracker,
    runtime_dir: PathBuf,
    uids: AtomicU32,
}

/// A sandbox whose process 1 has sent `HELLO`.
pub(crate) struct BenchSandbox {
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

impl BenchNode {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let runtime_dir =
            hanshu_runtimes::runtime_dir::install(&dir.path().join("runtime"), program()).unwrap();
        let id = format!("test-{}", &InstanceId::new().to_string()[..8]).parse().unwrap();
        fs::create_dir_all(dir.path().join("code")).unwrap();
        fs::write(dir.path().join("code/index.py"), "x = 1\n").unwrap();
        // Tests run concurrently, and the kernel counts some things by user.
        static NEXT_UIDS: AtomicU32 = AtomicU32::new(600_000);
        let uids = AtomicU32::new(NEXT_UIDS.fetch_add(100, Ordering::Relaxed));
        Self { id, dir, tasks: TaskTracker::new(), runtime_dir, uids }
    }

    /// The first of twenty user ids that no other test uses.
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
            owner: SandboxOwner::Function {
                function: FunctionId {
                    namespace: "default".parse().unwrap(),
                    name: "hello".parse().unwrap(),
                },
                version: "$LATEST".parse().unwrap(),
            },
            image: image_reference(family),
            mounts: vec![SandboxMount {
                source: self.dir.path().join("code"),
                target: CODE_DIR.into(),
            }],
            memory_mb: 128,
            cpu_milli: 1000,
            network,
            listens: family.profile().listens,
            pids_max: 64,
            open_files_max: 1024,
            uid,
            run_dir: self.dir.path().join("run").join(instance.to_string()),
        }
    }

    /// Starts a sandbox and waits for its shim.
    pub(crate) async fn start(
        &self,
        backend: &dyn SandboxBackend,
        spec: SandboxSpec,
    ) -> BenchSandbox {
        let (listener, output) = make_run_dir(&spec);
        let sandbox = backend.start(&spec).await.unwrap();
        let mut control = accept(&listener).await;
        let (kind, _) = read_frame(&mut control);
        assert_eq!(kind, FrameKind::Hello);
        BenchSandbox { sandbox, spec, control, output }
    }

    /// Starts a sandbox with the backend's default network and runs a script in it to its end.
    pub(crate) async fn run(
        &self,
        backend: &dyn SandboxBackend,
        script: &str,
    ) -> (ExitedMessage, String) {
        let spec = self.spec(RuntimeFamily::PYTHON, backend.default_network(false));
        let mut running = self.start(backend, spec).await;
        let ended = running.run(script);
        running.sandbox.stop().await;
        ended
    }
}

impl BenchSandbox {
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
        (serde_json::from_slice(&body).unwrap(), self.new_output())
    }

    pub(crate) fn run(&mut self, script: &str) -> (ExitedMessage, String) {
        self.begin(script);
        self.ended()
    }

    /// What it has written since the last call, without waiting.
    pub(crate) fn new_output(&mut self) -> String {
        let mut text = Vec::new();
        let mut bytes = [0; 65536];
        while let Ok(len @ 1..) = self.output.read(&mut bytes) {
            text.extend_from_slice(&bytes[..len]);
        }
        String::from_utf8(text).unwrap()
    }

    /// Waits until it has written something that contains `text`.
    pub(crate) async fn wait_for_output(&mut self, text: &str) {
        let mut output = String::new();
        let since = Instant::now();
        while !output.contains(text) {
            assert!(since.elapsed() < WAIT_MAX, "it output {output:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
            output += &self.new_output();
        }
    }
}

/// The run folder that the launcher makes: sockets and FIFO, owned by the sandbox's user.
fn make_run_dir(spec: &SandboxSpec) -> (UnixListener, File) {
    fs::create_dir_all(&spec.run_dir).unwrap();
    let [control, data, out] = ["control.sock", "data.sock", "out"].map(|n| spec.run_dir.join(n));
    let listener = UnixListener::bind(&control).unwrap();
    // The runtime is a script, which does not connect.
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
                stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
                return stream;
            }
            Err(_) => assert!(since.elapsed() < WAIT_MAX, "the shim does not connect"),
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
