//! The shim's main thread: it waits for the invoker, for signals and for children, and acts.

use std::io;
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
use super::oom_kills::OomKillCounter;
use super::processes::{LaunchSpec, OomScore, ProcessEnd, SandboxProcesses, open_output};
use super::signals::SignalPipes;
use super::{custom, go, shell, spawn_thread};
use crate::wire::{
    CONTROL_SOCKET, DATA_SOCKET, ExitedMessage, FrameKind, HelloMessage, OUTPUT_FIFO,
    PROTOCOL_VERSION, RuntimeAdapter, SOCKET_VARIABLE, StartMessage,
};

/// How long after SIGTERM what still runs is killed.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// The status of a runtime that could not be started, as shells have it.
const NOT_STARTED: i32 = 127;

/// The shim, connected.
#[derive(Debug)]
pub(super) struct ShimSupervisor {
    dir: PathBuf,
    control: UnixStream,
    signals: SignalPipes,
    oom_score: Option<OomScore>,
    running: Option<RunningRuntime>,
    /// When what still runs is killed.
    cut_off: Option<Instant>,
}

#[derive(Debug)]
struct RunningRuntime {
    sandbox: Arc<AdapterContext>,
    /// Kills before the function ran are none of its.
    oom_kills_before: u64,
    /// Hangs up when the adapter's thread ends.
    adapter: Option<UnixStream>,
}

/// Whether the shim goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SupervisorStep {
    Wait,
    End,
}

/// What there is to do.
#[derive(Clone, Copy, Debug, Default)]
struct ReadySources {
    control: bool,
    child: bool,
    stop: bool,
    adapter: bool,
}

impl ShimSupervisor {
    /// Connects to the invoker.
    pub(super) fn connect(dir: &Path) -> io::Result<Self> {
        let signals = SignalPipes::listen()?;
        let oom_score = Some(OomScore::open());
        // The function may run as the same user: it must not look into this process, or take its
        // descriptors. Where that is refused, the sandbox's other walls stand.
        let _ = prctl::set_dumpable(false);
        let control = UnixStream::connect(dir.join(CONTROL_SOCKET))?;
        let dir = dir.to_owned();
        Ok(Self { dir, control, signals, oom_score, running: None, cut_off: None })
    }

    /// Runs until the sandbox ends. When it returns, nothing that was started is left.
    pub(super) fn run(mut self) -> io::Result<()> {
        let hello = HelloMessage { protocol: PROTOCOL_VERSION, pid: std::process::id() };
        frames::write_json(&mut self.control, FrameKind::Hello, &hello)?;
        let ended = loop {
            match self.turn() {
                Ok(SupervisorStep::Wait) => {}
                Ok(SupervisorStep::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.kill_all();
        ended
    }

    fn turn(&mut self) -> io::Result<SupervisorStep> {
        let woken = self.wait()?;
        if woken.child {
            self.signals.drain_child();
            if let Some(end) = self.reap() {
                return self.report(end);
            }
        }
        if woken.stop {
            self.signals.drain_stop();
            self.terminate();
            self.cut_off.get_or_insert_with(|| Instant::now() + TERM_GRACE);
        }
        if woken.control && self.obey()? == SupervisorStep::End {
            return Ok(SupervisorStep::End);
        }
        if woken.adapter {
            // Its connection is over, so that nothing can be asked or answered any more.
            return Ok(SupervisorStep::End);
        }
        Ok(self.heed_cut_off())
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> io::Result<ReadySources> {
        let adapter = self.running.as_ref().and_then(|running| running.adapter.as_ref());
        let mut sources: [Option<BorrowedFd<'_>>; 4] = [None; 4];
        sources[0] = Some(self.control.as_fd());
        sources[1] = Some(self.signals.child());
        sources[2] = Some(self.signals.stop());
        sources[3] = adapter.map(AsFd::as_fd);
        let mut fds: Vec<_> =
            sources.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let timeout = self.cut_off.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(ReadySources::default()),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        Ok(ReadySources {
            control: is_ready(0),
            child: is_ready(1),
            stop: is_ready(2),
            adapter: is_ready(3),
        })
    }

    /// Does what the invoker's next frame says. Its going away means the end.
    fn obey(&mut self) -> io::Result<SupervisorStep> {
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

    fn start(&mut self, start: StartMessage) -> io::Result<SupervisorStep> {
        let Some(oom_score) = self.oom_score.take() else {
            return Err(frames::invalid("the invoker started a second runtime"));
        };
        let output = match open_output(&self.dir.join(OUTPUT_FIFO)) {
            Ok(output) => output,
            Err(error) => return self.report_not_started(&error),
        };
        let adapter = start.init.adapter;
        let oom_kills = OomKillCounter::find();
        let oom_kills_before = oom_kills.count().unwrap_or(0);
        let processes = SandboxProcesses::new(output, oom_score);
        let sandbox =
            Arc::new(AdapterContext { dir: self.dir.clone(), start, processes, oom_kills });
        let started = match adapter {
            RuntimeAdapter::Direct => start_direct(&sandbox).map(|()| None),
            RuntimeAdapter::Go => run_adapter(&sandbox, go::serve).map(Some),
            RuntimeAdapter::Custom => run_adapter(&sandbox, custom::serve).map(Some),
            RuntimeAdapter::Shell => run_adapter(&sandbox, shell::serve).map(Some),
        };
        match started {
            Ok(adapter) => {
                self.running = Some(RunningRuntime { sandbox, oom_kills_before, adapter });
                Ok(SupervisorStep::Wait)
            }
            Err(error) => self.report_not_started(&error),
        }
    }

    fn report_not_started(&mut self, error: &io::Error) -> io::Result<SupervisorStep> {
        let exited = ExitedMessage {
            code: Some(NOT_STARTED),
            error: Some(format!("the runtime cannot be started: {error}")),
            ..ExitedMessage::default()
        };
        self.tell(&exited)
    }

    /// Tells how the runtime ended, after everything that it left behind was ended too.
    fn report(&mut self, end: ProcessEnd) -> io::Result<SupervisorStep> {
        self.kill_all();
        let mut exited =
            ExitedMessage { oom_killed: self.oom_killed(end), ..ExitedMessage::default() };
        match end {
            ProcessEnd::Code(code) => exited.code = Some(code),
            ProcessEnd::Signal(signal) => exited.signal = Some(signal),
        }
        self.tell(&exited)
    }

    fn tell(&mut self, exited: &ExitedMessage) -> io::Result<SupervisorStep> {
        match frames::write_json(&mut self.control, FrameKind::Exited, exited) {
            Err(error) if !frames::ended(&error) => Err(error),
            Ok(()) | Err(_) => Ok(SupervisorStep::End),
        }
    }

    /// A runtime that ended well did not end for want of memory, whatever one of its children did.
    fn oom_killed(&self, end: ProcessEnd) -> Option<bool> {
        let running = self.running.as_ref()?;
        let kills = running.sandbox.oom_kills.count()?;
        let ended_badly = match end {
            ProcessEnd::Code(code) => code != 0,
            ProcessEnd::Signal(signal) => signal == Signal::SIGKILL as i32,
        };
        Some(ended_badly && running.oom_kills_before < kills)
    }

    fn heed_cut_off(&self) -> SupervisorStep {
        let Some(cut_off) = self.cut_off else { return SupervisorStep::Wait };
        let idle =
            self.running.as_ref().is_none_or(|running| !running.sandbox.processes.any_runs());
        if idle {
            return SupervisorStep::End;
        }
        if cut_off <= Instant::now() {
            // The runtime's end is then reported as any other is.
            self.kill_all();
        }
        SupervisorStep::Wait
    }

    fn reap(&self) -> Option<ProcessEnd> {
        self.running.as_ref().and_then(|running| running.sandbox.processes.reap())
    }

    fn terminate(&self) {
        if let Some(running) = &self.running {
            running.sandbox.processes.terminate();
        }
    }

    fn kill_all(&self) {
        if let Some(running) = &self.running {
            running.sandbox.processes.kill_all();
        }
    }
}

/// The runtime connects by itself; the shim only watches.
fn start_direct(sandbox: &AdapterContext) -> io::Result<()> {
    let socket = sandbox.dir.join(DATA_SOCKET);
    sandbox.processes.start_runtime(&LaunchSpec {
        argv: &sandbox.start.argv,
        env: &sandbox.start.env,
        more_env: &[(SOCKET_VARIABLE, &socket.to_string_lossy())],
        cwd: &sandbox.start.init.cwd,
    })
}

/// Runs an adapter on a thread of its own. The stream that is given back hangs up at its end.
fn run_adapter(
    sandbox: &Arc<AdapterContext>,
    serve: fn(&Arc<AdapterContext>) -> io::Result<()>,
) -> io::Result<UnixStream> {
    let (watched, held) = UnixStream::pair()?;
    let sandbox = Arc::clone(sandbox);
    spawn_thread("adapter", move || {
        if let Err(error) = serve(&sandbox) {
            use std::io::Write as _;
            // The container's own log, for the operator.
            let _ = writeln!(io::stderr(), "hanshu shim: {error}");
        }
        drop(held);
    })?;
    Ok(watched)
}
