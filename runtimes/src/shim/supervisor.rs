//! The shim's main thread: it waits for the invoker, for signals and for children, and acts.

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::adapter_context::AdapterContext;
use super::frames;
use super::function_calls::CallEndpoint;
use super::oom_kills::OomKillCounter;
use super::processes::{LaunchSpec, OomScore, ProcessEnd, SandboxProcesses, open_output};
use super::signals::SignalPipes;
use super::{custom, go, shell, spawn_thread};
use crate::wire::{
    CONTROL_SOCKET, DATA_SOCKET, ExitedMessage, FrameKind, HelloMessage, OUTPUT_FIFO,
    PROTOCOL_VERSION, RuntimeAdapter, SOCKET_VARIABLE, StartMessage,
};

/// How long after SIGTERM processes that still run are killed.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// The exit status of a runtime that could not be started, as shells use it.
const NOT_STARTED: i32 = 127;

/// The shim with its control connection, signals and the runtime that it started.
#[derive(Debug)]
pub(super) struct ShimSupervisor {
    dir: PathBuf,
    control: UnixStream,
    signals: SignalPipes,
    oom_score: Option<OomScore>,
    running: Option<RunningRuntime>,
    /// Until its first connection.
    calls: Option<CallEndpoint>,
    /// When processes that still run after SIGTERM are killed.
    kill_deadline: Option<Instant>,
}

#[derive(Debug)]
struct RunningRuntime {
    context: Arc<AdapterContext>,
    /// OOM kills before the function ran, which are not its own.
    oom_kills_before: u64,
    /// Becomes readable when the adapter's thread ends.
    adapter: Option<UnixStream>,
}

/// Whether the main loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SupervisorStep {
    Wait,
    End,
}

/// Which of the sources that the main loop waits for are ready.
#[derive(Clone, Copy, Debug, Default)]
struct ReadySources {
    control: bool,
    child: bool,
    stop: bool,
    adapter: bool,
    call: bool,
}

impl ShimSupervisor {
    /// Connects to the invoker.
    pub(super) fn connect(dir: &Path) -> io::Result<Self> {
        let signals = SignalPipes::listen()?;
        let oom_score = Some(OomScore::open());
        // The function may run as the same user: it must not look into this process, or take its
        // descriptors. Where that is refused, the rest of the isolation still holds.
        let _ = prctl::set_dumpable(false);
        let control = UnixStream::connect(dir.join(CONTROL_SOCKET))?;
        let dir = dir.to_owned();
        Ok(Self {
            dir,
            control,
            signals,
            oom_score,
            running: None,
            calls: None,
            kill_deadline: None,
        })
    }

    /// Runs until the sandbox ends. When this returns, no process that it started is left.
    pub(super) fn run(mut self) -> io::Result<()> {
        let hello = HelloMessage { protocol: PROTOCOL_VERSION, pid: std::process::id() };
        frames::write_json(&mut self.control, FrameKind::Hello, &hello)?;
        let ended = loop {
            match self.run_once() {
                Ok(SupervisorStep::Wait) => {}
                Ok(SupervisorStep::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.kill_all();
        ended
    }

    fn run_once(&mut self) -> io::Result<SupervisorStep> {
        let ready = self.wait()?;
        if ready.child {
            self.signals.drain_child();
            if let Some(end) = self.reap() {
                return self.report(end);
            }
        }
        if ready.stop {
            self.signals.drain_stop();
            self.terminate();
            self.kill_deadline.get_or_insert_with(|| Instant::now() + TERM_GRACE);
        }
        if ready.control && self.handle_control_frame()? == SupervisorStep::End {
            return Ok(SupervisorStep::End);
        }
        if ready.call {
            self.serve_calls();
        }
        if ready.adapter {
            // Its data connection has ended, so that no further event can be exchanged.
            return Ok(SupervisorStep::End);
        }
        Ok(self.enforce_kill_deadline())
    }

    /// Blocks until a source is ready or the kill deadline passes.
    fn wait(&self) -> io::Result<ReadySources> {
        let adapter = self.running.as_ref().and_then(|running| running.adapter.as_ref());
        let sources: [Option<BorrowedFd<'_>>; 5] = [
            Some(self.control.as_fd()),
            Some(self.signals.child()),
            Some(self.signals.stop()),
            adapter.map(AsFd::as_fd),
            self.calls.as_ref().map(CallEndpoint::as_fd),
        ];
        let mut fds: Vec<_> =
            sources.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let timeout = self.kill_deadline.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(ReadySources::default()),
            Err(error) => return Err(error.into()),
        }
        // In the order of the sources, without those that are absent.
        let mut polled = fds.iter();
        let [control, child, stop, adapter, call] = sources.map(|source| {
            source.and_then(|_| polled.next()).and_then(PollFd::any).unwrap_or(false)
        });
        Ok(ReadySources { control, child, stop, adapter, call })
    }

    /// Handles the invoker's next control frame. The end of the connection ends the sandbox.
    fn handle_control_frame(&mut self) -> io::Result<SupervisorStep> {
        let frame = match frames::read(&mut self.control) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(SupervisorStep::End),
            Err(error) if frames::ended(&error) => return Ok(SupervisorStep::End),
            Err(error) => return Err(error),
        };
        match frame.header.kind {
            FrameKind::Start => self.start(frame.json()?),
            FrameKind::Kill => Ok(SupervisorStep::End),
            FrameKind::Term => {
                self.terminate();
                Ok(SupervisorStep::Wait)
            }
            other @ (FrameKind::Hello
            | FrameKind::Exited
            | FrameKind::Init
            | FrameKind::Ready
            | FrameKind::InitFailed
            | FrameKind::Invoke
            | FrameKind::Result
            | FrameKind::Failed) => {
                Err(frames::invalid(format!("the invoker sent a frame of kind {other:?}")))
            }
        }
    }

    fn start(&mut self, mut start: StartMessage) -> io::Result<SupervisorStep> {
        let Some(oom_score) = self.oom_score.take() else {
            return Err(frames::invalid("the invoker started a second runtime"));
        };
        let output = match open_output(&self.dir.join(OUTPUT_FIFO)) {
            Ok(output) => output,
            Err(error) => return self.report_not_started(&error),
        };
        self.open_call_endpoint(&mut start);
        let adapter = start.init.adapter;
        let oom_kills = OomKillCounter::find();
        let oom_kills_before = oom_kills.count().unwrap_or(0);
        let processes = SandboxProcesses::new(output, oom_score);
        let context =
            Arc::new(AdapterContext { dir: self.dir.clone(), start, processes, oom_kills });
        let started = match adapter {
            RuntimeAdapter::Direct => start_direct(&context).map(|()| None),
            RuntimeAdapter::Go => run_adapter(&context, go::serve).map(Some),
            RuntimeAdapter::Custom => run_adapter(&context, custom::serve).map(Some),
            RuntimeAdapter::Shell => run_adapter(&context, shell::serve).map(Some),
        };
        match started {
            Ok(adapter) => {
                self.running = Some(RunningRuntime { context, oom_kills_before, adapter });
                Ok(SupervisorStep::Wait)
            }
            Err(error) => self.report_not_started(&error),
        }
    }

    /// Without its endpoint a function runs as usual, but cannot call others.
    fn open_call_endpoint(&mut self, start: &mut StartMessage) {
        match CallEndpoint::open(&self.dir) {
            Ok(endpoint) => {
                let variables = endpoint.variables();
                start.env.extend(variables.map(|(name, value)| (name.to_owned(), value)));
                self.calls = Some(endpoint);
            }
            Err(error) => log_error(&error),
        }
    }

    fn serve_calls(&mut self) {
        if let Some(Err(error)) = self.calls.take().map(CallEndpoint::serve) {
            log_error(&error);
        }
    }

    fn report_not_started(&mut self, error: &io::Error) -> io::Result<SupervisorStep> {
        let exited = ExitedMessage {
            code: Some(NOT_STARTED),
            error: Some(format!("the runtime cannot be started: {error}")),
            ..ExitedMessage::default()
        };
        self.send_exited(&exited)
    }

    /// Reports how the runtime ended, after killing everything that it left behind.
    fn report(&mut self, end: ProcessEnd) -> io::Result<SupervisorStep> {
        self.kill_all();
        let mut exited =
            ExitedMessage { oom_killed: self.oom_killed(end), ..ExitedMessage::default() };
        match end {
            ProcessEnd::Code(code) => exited.code = Some(code),
            ProcessEnd::Signal(signal) => exited.signal = Some(signal),
        }
        self.send_exited(&exited)
    }

    fn send_exited(&mut self, exited: &ExitedMessage) -> io::Result<SupervisorStep> {
        match frames::write_json(&mut self.control, FrameKind::Exited, exited) {
            Err(error) if !frames::ended(&error) => Err(error),
            Ok(()) | Err(_) => Ok(SupervisorStep::End),
        }
    }

    /// A runtime that exited with 0 did not run out of memory, even if one of its children did.
    fn oom_killed(&self, end: ProcessEnd) -> Option<bool> {
        let running = self.running.as_ref()?;
        let kills = running.context.oom_kills.count()?;
        let ended_badly = match end {
            ProcessEnd::Code(code) => code != 0,
            ProcessEnd::Signal(signal) => signal == Signal::SIGKILL as i32,
        };
        Some(ended_badly && running.oom_kills_before < kills)
    }

    fn enforce_kill_deadline(&self) -> SupervisorStep {
        let Some(kill_deadline) = self.kill_deadline else { return SupervisorStep::Wait };
        let idle =
            self.running.as_ref().is_none_or(|running| !running.context.processes.any_runs());
        if idle {
            return SupervisorStep::End;
        }
        if kill_deadline <= Instant::now() {
            // The runtime's end is then reported like any other.
            self.kill_all();
        }
        SupervisorStep::Wait
    }

    fn reap(&self) -> Option<ProcessEnd> {
        self.running.as_ref().and_then(|running| running.context.processes.reap())
    }

    fn terminate(&self) {
        if let Some(running) = &self.running {
            running.context.processes.terminate();
        }
    }

    fn kill_all(&self) {
        if let Some(running) = &self.running {
            running.context.processes.kill_all();
        }
    }
}

/// The runtime connects by itself; the shim only supervises it.
fn start_direct(context: &AdapterContext) -> io::Result<()> {
    let socket = context.dir.join(DATA_SOCKET);
    context.processes.start_runtime(&LaunchSpec {
        argv: &context.start.argv,
        env: &context.start.env,
        more_env: &[(SOCKET_VARIABLE, &socket.to_string_lossy())],
        cwd: &context.start.init.cwd,
    })
}

/// Runs an adapter on a thread of its own. The returned stream becomes readable when it ends.
fn run_adapter(
    context: &Arc<AdapterContext>,
    serve: fn(&Arc<AdapterContext>) -> io::Result<()>,
) -> io::Result<UnixStream> {
    let (watched, held) = UnixStream::pair()?;
    let context = Arc::clone(context);
    spawn_thread("adapter", move || {
        if let Err(error) = serve(&context) {
            log_error(&error);
        }
        drop(held);
    })?;
    Ok(watched)
}

/// Goes to the container's own log, for the operator.
fn log_error(error: &io::Error) {
    let _ = writeln!(io::stderr(), "hanshu shim: {error}");
}
