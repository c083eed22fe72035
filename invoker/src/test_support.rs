//! Test support: a backend whose sandboxes are threads that speak the real protocol over the real
//! sockets, as events tell them to, a journal in memory, and packages that are always present.

mod scripted_event;

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::{
    InvocationJournal, JournalError, LogPage, LogQuery, PackageError, PackageStore,
};
use hanshu_core::{
    AsyncPolicy, Digest, FunctionConfig, FunctionId, InvocationRecord, LogBatch, Qualifier,
    RequestId, Revision, Timestamp,
};
use hanshu_runtimes::wire::{
    ExitedMessage, FrameHeader, FrameKind, HelloMessage, InitMessage, RuntimeFailure, StartMessage,
};
use serde_json::{Value, json};

use scripted_event::run_event;

use crate::backend::port::{
    NetworkAccess, Sandbox, SandboxBackend, SandboxOwner, SandboxSpec, StartError,
};

pub(crate) fn revision(name: &str) -> Revision {
    Revision {
        function: FunctionId { namespace: Default::default(), name: name.parse().unwrap() },
        version: Qualifier::Latest,
        digest: Digest::from_bytes([1; 32]),
        code: Digest::from_bytes([2; 32]),
        config: FunctionConfig {
            runtime: "python".parse().unwrap(),
            handler: "index.main_handler".into(),
            memory_mb: 128,
            timeout: Duration::from_secs(3),
            init_timeout: Duration::from_secs(3),
            concurrency: None,
            network: None,
            async_policy: AsyncPolicy::default(),
            env: Default::default(),
        },
    }
}

/// A backend that counts what happens to its sandboxes.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedBackend(pub(crate) Arc<BackendCounts>);

#[derive(Debug, Default)]
pub(crate) struct BackendCounts {
    pub(crate) started: AtomicU32,
    pub(crate) stopped: AtomicU32,
    /// `TERM` frames that shims were sent.
    pub(crate) terminated: AtomicU32,
    /// Events that have ever waited for SIGTERM.
    pub(crate) waiting_for_term: AtomicU32,
    pub(crate) frozen: AtomicU32,
    pub(crate) thawed: AtomicU32,
    pub(crate) swept: AtomicU32,
    /// Refuse every start.
    pub(crate) broken: AtomicBool,
    /// State of the random numbers that decide on faults; `None`: no faults.
    pub(crate) chance: Mutex<Option<u64>>,
    /// The prewarmed sandboxes among the started.
    pub(crate) prewarm: AtomicU32,
    /// Prewarmed sandboxes that were given code.
    pub(crate) given: AtomicU32,
    /// Refuse to start prewarmed sandboxes, or to give them code.
    pub(crate) no_prewarmed: AtomicBool,
    pub(crate) no_code: AtomicBool,
    /// The specifications of the started sandboxes, in order.
    pub(crate) specs: Mutex<Vec<SandboxSpec>>,
    /// The `START` messages that their shims were sent, in order.
    pub(crate) starts: Mutex<Vec<StartMessage>>,
}

#[derive(Debug)]
struct ScriptedSandbox {
    counts: Arc<BackendCounts>,
    inside: Arc<ScriptedProcess>,
}

/// What the threads of one sandbox share.
#[derive(Debug, Default)]
struct ScriptedProcess {
    counts: Arc<BackendCounts>,
    killed: AtomicBool,
    terminated: AtomicU32,
    frozen: AtomicBool,
    oom_kills: AtomicU64,
    sockets: Mutex<Vec<UnixStream>>,
}

impl BackendCounts {
    /// A random number below `below`; 0, which is no fault, where there are to be no faults.
    pub(crate) fn roll(&self, below: u64) -> u64 {
        let mut chance = self.chance.lock().unwrap();
        let Some(state) = chance.as_mut() else { return 0 };
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 16) % below
    }
}

#[async_trait]
impl SandboxBackend for ScriptedBackend {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn default_network(&self, _: bool) -> NetworkAccess {
        NetworkAccess::None
    }

    async fn start(&self, spec: &SandboxSpec) -> Result<Box<dyn Sandbox>, StartError> {
        if self.0.broken.load(Ordering::Relaxed) {
            return Err(StartError::Unavailable("the engine does not answer".into()));
        }
        let fault = self.0.roll(12);
        if (1..=3).contains(&fault) {
            tokio::time::sleep(Duration::from_millis(self.0.roll(40))).await;
        }
        if (3..=4).contains(&fault) {
            return Err(StartError::Unavailable("a fault on purpose".into()));
        }
        self.0.started.fetch_add(1, Ordering::Relaxed);
        if spec.owner == SandboxOwner::Unassigned {
            self.0.prewarm.fetch_add(1, Ordering::Relaxed);
        }
        self.0.specs.lock().unwrap().push(spec.clone());
        let inside =
            Arc::new(ScriptedProcess { counts: Arc::clone(&self.0), ..Default::default() });
        let (run_dir, its) = (spec.run_dir.clone(), Arc::clone(&inside));
        match fault {
            // It starts and never connects.
            5 => {}
            // It ends while it starts.
            6 => {
                thread::spawn(move || drop(shim(run_dir, &its)));
                let (its, after) = (Arc::clone(&inside), self.0.roll(5));
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(after));
                    its.kill();
                });
            }
            _ => drop(thread::spawn(move || drop(shim(run_dir, &its)))),
        }
        Ok(Box::new(ScriptedSandbox { counts: Arc::clone(&self.0), inside }))
    }

    fn prewarming(&self) -> Result<(), String> {
        if self.0.no_prewarmed.load(Ordering::Relaxed) { Err("none".into()) } else { Ok(()) }
    }

    async fn sweep(&self) -> Result<u32, StartError> {
        self.0.swept.fetch_add(1, Ordering::Relaxed);
        Ok(0)
    }
}

#[async_trait]
impl Sandbox for ScriptedSandbox {
    async fn stop(&self) {
        tokio::time::sleep(Duration::from_millis(self.counts.roll(20))).await;
        self.inside.kill();
        self.counts.stopped.fetch_add(1, Ordering::Relaxed);
    }

    async fn give_code(&self, _: &Path) -> Result<(), StartError> {
        if self.counts.no_code.load(Ordering::Relaxed) {
            return Err(StartError::Unsupported("no code".into()));
        }
        self.counts.given.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn freeze(&self) -> bool {
        self.counts.frozen.fetch_add(1, Ordering::Relaxed);
        self.inside.frozen.store(true, Ordering::Relaxed);
        true
    }

    fn thaw(&self) -> bool {
        self.counts.thawed.fetch_add(1, Ordering::Relaxed);
        self.inside.frozen.store(false, Ordering::Relaxed);
        true
    }

    fn memory_bytes(&self) -> Option<u64> {
        Some(12_345)
    }

    fn oom_kills(&self) -> Option<u64> {
        Some(self.inside.oom_kills.load(Ordering::Relaxed))
    }
}

impl ScriptedProcess {
    fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        for socket in self.sockets.lock().unwrap().iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    fn connect(&self, path: PathBuf) -> UnixStream {
        let socket = UnixStream::connect(path).unwrap();
        self.sockets.lock().unwrap().push(socket.try_clone().unwrap());
        socket
    }
}

type IoResult<T> = std::io::Result<T>;

fn send(mut to: &UnixStream, header: FrameHeader, body: &[u8]) -> IoResult<()> {
    to.write_all(&[&header.encode()[..], body].concat())
}

fn send_json(
    to: &UnixStream,
    kind: FrameKind,
    event: u64,
    body: &impl serde::Serialize,
) -> IoResult<()> {
    let body = serde_json::to_vec(body).unwrap();
    send(to, FrameHeader::new(kind, event, body.len()).unwrap(), &body)
}

fn receive(mut from: &UnixStream) -> IoResult<(FrameHeader, Vec<u8>)> {
    let mut header = [0; 16];
    from.read_exact(&mut header)?;
    let header = FrameHeader::decode(&header).unwrap();
    let mut rest = vec![0; usize::from(header.head_len) + header.body_len()];
    from.read_exact(&mut rest)?;
    rest.drain(..usize::from(header.head_len));
    Ok((header, rest))
}

/// Plays process 1 and the runtime.
fn shim(run_dir: PathBuf, inside: &Arc<ScriptedProcess>) -> IoResult<()> {
    let control = inside.connect(run_dir.join("control.sock"));
    send_json(&control, FrameKind::Hello, 0, &HelloMessage { protocol: 1, pid: 1 })?;
    let (_, body) = receive(&control)?;
    let start: StartMessage = serde_json::from_slice(&body).unwrap();
    inside.counts.starts.lock().unwrap().push(start.clone());
    let out = OpenOptions::new().write(true).open(run_dir.join("out"))?;
    let data = inside.connect(run_dir.join("data.sock"));
    let (its, its_control) = (Arc::clone(inside), control.try_clone()?);
    thread::spawn(move || {
        while receive(&its_control).is_ok_and(|(header, _)| header.kind == FrameKind::Term) {
            its.terminated.fetch_add(1, Ordering::Relaxed);
            its.counts.terminated.fetch_add(1, Ordering::Relaxed);
        }
        // Any other frame, and the end of the connection, ends the sandbox.
        its.kill();
    });
    let (header, body) = receive(&data)?;
    assert_eq!(header.kind, FrameKind::Init);
    let init: InitMessage = serde_json::from_slice(&body).unwrap();
    let late: Value = serde_json::from_slice(&body).unwrap();
    let env = if late["env"].is_object() { late["env"].clone() } else { json!(start.env) };
    assert_eq!(env["SCF_FUNCTIONNAME"], init.function_name, "the environment of {init:?}");
    let exited = |code| ExitedMessage { code: Some(code), ..ExitedMessage::default() };
    match init.handler.as_str() {
        "init_fails" => {
            writeln!(&out, "loading")?;
            return send_json(
                &data,
                FrameKind::InitFailed,
                0,
                &RuntimeFailure::new(437, "no such handler"),
            );
        }
        // Both connections report at once, as with a runtime that exits immediately.
        "init_fails_and_exits" => {
            send_json(&control, FrameKind::Exited, 0, &exited(1))?;
            thread::sleep(Duration::from_millis(10));
            return send_json(
                &data,
                FrameKind::InitFailed,
                0,
                &RuntimeFailure::new(437, "no such handler"),
            );
        }
        "init_exits" => {
            send_json(&control, FrameKind::Exited, 0, &exited(3))?;
            inside.kill();
            return Ok(());
        }
        "init_hangs" => return Ok(()),
        "init_talks" => writeln!(&out, "hello from the import")?,
        "init_slowly" => thread::sleep(Duration::from_millis(100)),
        _ => {}
    }
    send(&data, FrameHeader::new(FrameKind::Ready, 0, 0).unwrap(), &[])?;
    while let Ok((header, event)) = receive(&data) {
        while inside.frozen.load(Ordering::Relaxed) && !inside.killed() {
            thread::sleep(Duration::from_millis(1));
        }
        if !run_event(&data, &out, header.event, &event, inside)? {
            send_json(&control, FrameKind::Exited, 0, &exited(3))?;
            inside.kill();
        }
    }
    Ok(())
}

/// Keeps every record and line.
#[derive(Debug, Default)]
pub(crate) struct MemoryJournal {
    pub(crate) records: Mutex<Vec<InvocationRecord>>,
    pub(crate) batches: Mutex<Vec<LogBatch>>,
}

impl MemoryJournal {
    /// The lines of one invocation, or those of none.
    pub(crate) fn lines(&self, request_id: Option<RequestId>) -> Vec<String> {
        let batches = self.batches.lock().unwrap();
        let its = batches.iter().filter(|batch| batch.request_id == request_id);
        its.flat_map(|batch| batch.lines.clone()).collect()
    }

    /// The status codes in the order of recording.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.records.lock().unwrap().iter().map(|record| record.status.number()).collect()
    }
}

#[async_trait]
impl InvocationJournal for MemoryJournal {
    fn record(&self, record: InvocationRecord) {
        self.records.lock().unwrap().push(record);
    }

    fn log(&self, batch: LogBatch) {
        self.batches.lock().unwrap().push(batch);
    }

    async fn flush(&self) -> Result<(), JournalError> {
        Ok(())
    }

    async fn find(&self, _: RequestId) -> Result<Vec<InvocationRecord>, JournalError> {
        Err(JournalError::Failed("this journal only takes records".into()))
    }

    async fn read(&self, _: &LogQuery) -> Result<LogPage, JournalError> {
        Err(JournalError::Failed("this journal only takes records".into()))
    }

    async fn collect(&self, _: Timestamp) -> Result<u64, JournalError> {
        Ok(0)
    }
}

/// Has every package, empty.
#[derive(Debug, Default)]
pub(crate) struct EmptyPackages;

#[async_trait]
impl PackageStore for EmptyPackages {
    async fn has(&self, _: &Digest) -> bool {
        true
    }

    async fn put(&self, _: &Digest, _: Bytes) -> Result<(), PackageError> {
        Ok(())
    }

    async fn zip(&self, digest: &Digest) -> Result<Bytes, PackageError> {
        Err(PackageError::Missing(digest.clone()))
    }

    async fn folder(&self, _: &Digest) -> Result<PathBuf, PackageError> {
        Ok(PathBuf::from("/nonexistent"))
    }

    async fn collect(&self, _: &[Digest]) -> Result<u64, PackageError> {
        Ok(0)
    }
}

/// An event that makes the scripted runtime do something.
pub(crate) fn command(what: &str, more: Value) -> Bytes {
    let mut command = json!({ "do": what });
    if let (Some(command), Value::Object(more)) = (command.as_object_mut(), more) {
        command.extend(more);
    }
    serde_json::to_vec(&command).unwrap().into()
}
