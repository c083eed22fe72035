//! A sandbox's folder, the shim in it, and the invoker's side of both connections.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hanshu_runtimes::wire::{
    CONTROL_SOCKET, DATA_SOCKET, EventOrigin, ExitedMessage, FrameHeader, FrameKind, HelloMessage,
    InitMessage, InvokeHead, OUTPUT_FIFO, RuntimeAdapter, RuntimeFailure, StartMessage,
};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use tempfile::TempDir;

/// Nothing here takes so long, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65_534;
pub(crate) const REQUEST_ID: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// One sandbox under test. Dropped, it is killed.
pub(crate) struct ShimFixture {
    dir: TempDir,
    pub(crate) start: StartMessage,
    shim: Option<Child>,
    control: Option<UnixStream>,
    data: Option<UnixStream>,
    listeners: (UnixListener, UnixListener),
    output: File,
    events: u64,
}

/// One frame from the shim.
#[derive(Debug)]
pub(crate) struct ReceivedFrame {
    pub(crate) header: FrameHeader,
    pub(crate) body: Vec<u8>,
}

impl ShimFixture {
    pub(crate) fn new(adapter: RuntimeAdapter) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("code")).unwrap();
        let listen = |name: &str| UnixListener::bind(dir.path().join(name)).unwrap();
        let listeners = (listen(CONTROL_SOCKET), listen(DATA_SOCKET));
        let fifo = dir.path().join(OUTPUT_FIFO);
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let output = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&fifo)
            .unwrap();
        let cwd = dir.path().join("code").to_string_lossy().into_owned();
        let init = InitMessage {
            adapter,
            handler: "handler".to_owned(),
            function_name: "f".to_owned(),
            function_version: "$LATEST".to_owned(),
            namespace: "default".to_owned(),
            memory_mb: 128,
            timeout_ms: 3000,
            init_timeout_ms: 20_000,
            user_env: BTreeMap::from([("GREETING".to_owned(), "hi".to_owned())]),
            port: 0,
            cwd,
        };
        let path = std::env::var("PATH").unwrap_or_default();
        let env = BTreeMap::from([("PATH".to_owned(), path), ("KEY".to_owned(), "v".to_owned())]);
        let start = StartMessage { argv: Vec::new(), env, init };
        let (shim, control, data) = (None, None, None);
        Self { dir, start, shim, control, data, listeners, output, events: 0 }
    }

    /// A function whose handler is this script, which is also what is started.
    pub(crate) fn with_script(adapter: RuntimeAdapter, name: &str, text: &str) -> Self {
        let mut fixture = Self::new(adapter);
        let path = fixture.file(name, text, 0o755);
        fixture.start.argv = vec![path.to_string_lossy().into_owned()];
        fixture.start.init.handler = name.to_owned();
        fixture
    }

    /// Puts a file into the function's code.
    pub(crate) fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.code().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(crate) fn code(&self) -> PathBuf {
        self.dir.path().join("code")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the shim, and the runtime in it; not yet initialised.
    pub(crate) fn start(&mut self) {
        self.start_as(Command::new(env!("CARGO_BIN_EXE_shim-under-test")));
    }

    /// The same as process 1 of a pid namespace, as it is in a real sandbox.
    pub(crate) fn start_as_init(&mut self) {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        unshare.arg(env!("CARGO_BIN_EXE_shim-under-test"));
        self.start_as(unshare);
    }

    /// The same under a parent that ignores some signals, as `nohup` does.
    pub(crate) fn start_ignoring(&mut self, signals: &str) {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("trap '' {signals}; exec \"$@\""), "sh"]);
        shell.arg(env!("CARGO_BIN_EXE_shim-under-test"));
        self.start_as(shell);
    }

    /// The same in a control group.
    pub(crate) fn start_in(&mut self, group: &Path) {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]).arg(group);
        shell.arg(env!("CARGO_BIN_EXE_shim-under-test"));
        self.start_as(shell);
    }

    /// The same as a user without rights, who owns the sandbox's folder. Needs root.
    pub(crate) fn start_as_nobody(&mut self) {
        let program = self.code().join("hanshu");
        fs::copy(env!("CARGO_BIN_EXE_shim-under-test"), &program).unwrap();
        for path in [self.dir(), &self.dir().join(CONTROL_SOCKET), &self.dir().join(OUTPUT_FIFO)] {
            std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
        unshare.args(["setpriv", "--reuid", &NOBODY.to_string(), "--clear-groups", "--"]);
        unshare.arg(program);
        self.start_as(unshare);
    }

    fn start_as(&mut self, mut shim: Command) {
        shim.arg("--dir").arg(self.dir.path()).stdin(Stdio::null());
        self.shim = Some(shim.spawn().unwrap());
        self.control = Some(accept(&self.listeners.0));
        let frame = self.control_frame().unwrap();
        assert_eq!(frame.header.kind, FrameKind::Hello);
        let hello: HelloMessage = serde_json::from_slice(&frame.body).unwrap();
        assert_eq!(hello.protocol, 1);
        let start = serde_json::to_vec(&self.start).unwrap();
        self.send_control(FrameKind::Start, &start);
    }

    /// Takes the data connection and sends `INIT`; gives the answer to it.
    pub(crate) fn init(&mut self) -> ReceivedFrame {
        self.send_init();
        self.data_frame().expect("an answer to INIT")
    }

    /// Takes the data connection and sends `INIT`.
    pub(crate) fn send_init(&mut self) {
        let mut data = accept(&self.listeners.1);
        let init = serde_json::to_vec(&self.start.init).unwrap();
        send(&mut data, FrameHeader::new(FrameKind::Init, 0, init.len()).unwrap(), &[], &init);
        self.data = Some(data);
    }

    /// A fixture whose runtime is ready.
    pub(crate) fn ready(mut self) -> Self {
        self.start();
        let frame = self.init();
        assert_eq!(frame.header.kind, FrameKind::Ready, "{}", String::from_utf8_lossy(&frame.body));
        self
    }

    /// Why the runtime could not be initialised.
    pub(crate) fn refusal(mut self) -> RuntimeFailure {
        self.start();
        let frame = self.init();
        assert_eq!(frame.header.kind, FrameKind::InitFailed);
        serde_json::from_slice(&frame.body).unwrap()
    }

    /// Sends an event and does not wait for its answer.
    pub(crate) fn send_event(&mut self, payload: &[u8]) {
        self.events += 1;
        let header = FrameHeader::new(FrameKind::Invoke, self.events, payload.len()).unwrap();
        let request_id = REQUEST_ID.as_bytes().try_into().unwrap();
        let head = InvokeHead { remaining_ms: 30_000, origin: EventOrigin::DIRECT, request_id };
        send(self.data.as_mut().unwrap(), header, &head.encode(), payload);
    }

    /// The next frame of the data connection; `None` when it has ended.
    pub(crate) fn data_frame(&mut self) -> Option<ReceivedFrame> {
        read(self.data.as_mut().unwrap())
    }

    /// Sends an event and takes its answer, whichever it is.
    pub(crate) fn invoke(&mut self, payload: &[u8]) -> ReceivedFrame {
        self.send_event(payload);
        let frame = self.data_frame().expect("an answer");
        assert_eq!(frame.header.event, self.events);
        frame
    }

    /// What the function returns for an event.
    pub(crate) fn result(&mut self, payload: &str) -> String {
        let frame = self.invoke(payload.as_bytes());
        let body = String::from_utf8(frame.body).unwrap();
        assert_eq!(frame.header.kind, FrameKind::Result, "{body}");
        body
    }

    /// How the function fails on an event, and whether it takes another.
    pub(crate) fn failure(&mut self, payload: &str) -> (RuntimeFailure, bool) {
        let frame = self.invoke(payload.as_bytes());
        assert_eq!(
            frame.header.kind,
            FrameKind::Failed,
            "{}",
            String::from_utf8_lossy(&frame.body)
        );
        (serde_json::from_slice(&frame.body).unwrap(), frame.header.is_last())
    }

    pub(crate) fn send_control(&mut self, kind: FrameKind, body: &[u8]) {
        let header = FrameHeader::new(kind, 0, body.len()).unwrap();
        send(self.control.as_mut().unwrap(), header, &[], body);
    }

    /// The next frame of the control connection; `None` when it has ended.
    pub(crate) fn control_frame(&mut self) -> Option<ReceivedFrame> {
        read(self.control.as_mut().unwrap())
    }

    /// How the runtime ended.
    pub(crate) fn exited(&mut self) -> ExitedMessage {
        let frame = self.control_frame().expect("EXITED");
        assert_eq!(frame.header.kind, FrameKind::Exited);
        serde_json::from_slice(&frame.body).unwrap()
    }

    /// The invoker goes away.
    pub(crate) fn hang_up(&mut self) {
        self.control = None;
    }

    pub(crate) fn shim_pid(&self) -> i32 {
        self.shim.as_ref().unwrap().id().try_into().unwrap()
    }

    /// Waits until the shim has ended.
    pub(crate) fn wait_end(&mut self) {
        let mut shim = self.shim.take().unwrap();
        eventually("the shim ends", || shim.try_wait().unwrap().is_some());
    }

    /// What was written to the log up to now.
    pub(crate) fn log(&mut self) -> String {
        let mut text = Vec::new();
        // Ends with `WouldBlock` or with the end of the last writer.
        let _ = self.output.read_to_end(&mut text);
        String::from_utf8(text).unwrap()
    }
}

impl Drop for ShimFixture {
    fn drop(&mut self) {
        if let Some(mut shim) = self.shim.take() {
            // The end of its control connection ends the sandbox; the kill is for a broken shim.
            self.control = None;
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until && matches!(shim.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = shim.kill();
            let _ = shim.wait();
        }
    }
}

/// Waits until something is so, which must not take long.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process runs; one that has ended and was not collected does not.
pub(crate) fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn accept(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let mut stream = None;
    eventually("somebody connects", || {
        stream = listener.accept().ok();
        stream.is_some()
    });
    let (stream, _) = stream.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn send(stream: &mut UnixStream, header: FrameHeader, head: &[u8], body: &[u8]) {
    stream.write_all(&header.encode()).unwrap();
    stream.write_all(head).unwrap();
    stream.write_all(body).unwrap();
}

fn read(stream: &mut UnixStream) -> Option<ReceivedFrame> {
    let mut bytes = [0; 16];
    match stream.read(&mut bytes[..1]) {
        Ok(0) => return None,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
        other => assert_eq!(other.unwrap(), 1),
    }
    stream.read_exact(&mut bytes[1..]).unwrap();
    let header = FrameHeader::decode(&bytes).unwrap();
    let mut body = vec![0; header.body_len()];
    stream.read_exact(&mut body).unwrap();
    Some(ReceivedFrame { header, body })
}
