//! Starts, reaps and kills the processes of the sandbox.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The OOM score of everything that the shim starts: the kernel kills it before the shim.
const CHILD_OOM_SCORE: &str = "1000";
/// How long the invoker may take to open its end of the output.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(5);

/// How long killed processes may take to be reaped.
const CLEAR_PATIENCE: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessEnd {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// How to start a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaunchSpec<'a> {
    /// Program and arguments.
    pub(super) argv: &'a [String],
    /// The whole environment.
    pub(super) env: &'a BTreeMap<String, String>,
    /// More variables, which override those of `env`.
    pub(super) more_env: &'a [(&'a str, &'a str)],
    pub(super) cwd: &'a str,
}

/// A process that runs for one event.
#[derive(Debug)]
pub(super) struct ScriptProcess {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    /// Receives once how it ended.
    pub(super) end: Receiver<ProcessEnd>,
}

/// Everything that the shim started. The main thread reaps; other threads may start and kill.
#[derive(Debug)]
pub(super) struct SandboxProcesses {
    table: Mutex<ProcessTable>,
    /// Notified whenever children were reaped.
    reaped: Condvar,
    output: File,
    oom_score: OomScore,
    /// Whether this is process 1 of a namespace, in which every other process is the sandbox's.
    is_init: bool,
}

#[derive(Debug, Default)]
struct ProcessTable {
    runtime: Option<Pid>,
    runtime_end: Option<ProcessEnd>,
    script: Option<(Pid, SyncSender<ProcessEnd>)>,
    /// Whether the last reaping found no child left; process 1 also has orphans as children.
    childless: bool,
    /// The last script, whose process group may still have members.
    script_group: Option<Pid>,
}

impl SandboxProcesses {
    /// `output` receives the processes' standard output and error.
    pub(super) fn new(output: File, oom_score: OomScore) -> Self {
        Self {
            table: Mutex::default(),
            reaped: Condvar::new(),
            output,
            oom_score,
            is_init: std::process::id() == 1,
        }
    }

    /// Starts the runtime, with its output in the log.
    ///
    /// # Errors
    /// The reason why it cannot be started; no process is left then.
    pub(super) fn start_runtime(&self, launch: &LaunchSpec<'_>) -> io::Result<()> {
        let mut command = self.command(launch)?;
        command.stdin(Stdio::null()).stdout(self.output.try_clone()?);
        // Locked while starting, so that the reaper never finds an unknown child.
        let mut table = self.lock();
        table.childless = false;
        table.runtime = Some(pid_of(&self.spawn(&mut command)?)?);
        Ok(())
    }

    /// Starts a script, with its standard input and output as pipes.
    ///
    /// # Errors
    /// The reason why it cannot be started; no process is left then.
    pub(super) fn start_script(&self, launch: &LaunchSpec<'_>) -> io::Result<ScriptProcess> {
        let mut command = self.command(launch)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let (sender, end) = sync_channel(1);
        let mut table = self.lock();
        table.childless = false;
        let mut child = self.spawn(&mut command)?;
        let pid = pid_of(&child)?;
        table.script = Some((pid, sender));
        table.script_group = Some(pid);
        drop(table);
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(ScriptProcess { stdin, stdout, end }),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Reaps every process that has ended; returns how the runtime ended, if it has.
    pub(super) fn reap(&self) -> Option<ProcessEnd> {
        let mut table = self.lock();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => table.ended(pid, ProcessEnd::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    table.ended(pid, ProcessEnd::Signal(signal as i32));
                }
                Err(Errno::ECHILD) => {
                    table.childless = true;
                    break;
                }
                Ok(WaitStatus::StillAlive) => break,
                // Other states are not requested; an interrupted call is repeated.
                Ok(_) | Err(_) => {}
            }
        }
        self.reaped.notify_all();
        table.runtime_end
    }

    /// Whether the runtime has ended, or does so within this time.
    pub(super) fn runtime_ends_within(&self, time: Duration) -> bool {
        let waited =
            self.reaped.wait_timeout_while(self.lock(), time, |table| table.runtime_end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.runtime_end.is_some()
    }

    /// Whether the runtime or a script still runs.
    pub(super) fn any_runs(&self) -> bool {
        let table = self.lock();
        table.script.is_some() || (table.runtime.is_some() && table.runtime_end.is_none())
    }

    /// Sends SIGTERM to the runtime or the script.
    pub(super) fn terminate(&self) {
        let table = self.lock();
        let runtime = table.runtime.filter(|_| table.runtime_end.is_none());
        let script = table.script.as_ref().map(|(pid, _)| *pid);
        for pid in runtime.into_iter().chain(script) {
            // Fails only if it has just ended.
            let _ = kill(pid, Signal::SIGTERM);
        }
    }

    /// Kills everything but the shim, whatever session it forked into. Outside of a sandbox, where
    /// tests run, it kills only the process groups that were started here.
    pub(super) fn kill_all(&self) {
        // Fails only if nothing runs any more.
        if self.is_init {
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            return;
        }
        let table = self.lock();
        for group in table.runtime.into_iter().chain(table.script_group) {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }

    /// Kills everything but the shim and waits until it is reaped: until then it counts towards the
    /// limit of processes.
    pub(super) fn kill_all_and_wait(&self) {
        self.kill_all();
        // If something is left after this time, the next start reports its own error.
        let _ =
            self.reaped.wait_timeout_while(self.lock(), CLEAR_PATIENCE, |table| !table.childless);
    }

    fn command(&self, launch: &LaunchSpec<'_>) -> io::Result<Command> {
        let Some((program, arguments)) = launch.argv.split_first() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "there is no program to start",
            ));
        };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(launch.cwd).process_group(0);
        command.env_clear().envs(launch.env).envs(launch.more_env.iter().copied());
        command.stderr(self.output.try_clone()?);
        Ok(command)
    }

    fn spawn(&self, command: &mut Command) -> io::Result<std::process::Child> {
        self.oom_score.raise();
        let child = command.spawn();
        self.oom_score.restore();
        child
    }

    fn lock(&self) -> MutexGuard<'_, ProcessTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProcessTable {
    fn ended(&mut self, pid: Pid, end: ProcessEnd) {
        if self.runtime == Some(pid) {
            self.runtime_end = Some(end);
        }
        if let Some((_, sender)) = self.script.take_if(|(script, _)| *script == pid) {
            // The receiver may be gone.
            let _ = sender.try_send(end);
        }
    }
}

fn pid_of(child: &std::process::Child) -> io::Result<Pid> {
    i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)
}

/// The shim's own OOM score. It is raised while a child is started, so that the child inherits it
/// from its first instruction on.
#[derive(Debug)]
pub(super) struct OomScore {
    /// Opened early: once the shim is not dumpable, it cannot open its own file any more.
    file: Option<File>,
    own: String,
}

impl OomScore {
    /// The score of this process.
    pub(super) fn open() -> Self {
        let path = Path::new("/proc/self/oom_score_adj");
        let own = std::fs::read_to_string(path).unwrap_or_default();
        Self { file: OpenOptions::new().write(true).open(path).ok(), own }
    }

    fn raise(&self) {
        self.set(CHILD_OOM_SCORE);
    }

    fn restore(&self) {
        self.set(self.own.trim());
    }

    /// Best effort: without it the kernel may kill the shim, which ends the sandbox as well.
    fn set(&self, score: &str) {
        if let Some(file) = &self.file {
            let _ = file.write_at(score.as_bytes(), 0);
        }
    }
}

/// Opens the FIFO of the sandbox's output, write-only: nothing in the sandbox can read it through
/// this descriptor.
///
/// # Errors
/// What the file system says; `ENXIO` when nobody reads it for five seconds.
pub(super) fn open_output(path: &Path) -> io::Result<File> {
    let until = Instant::now() + OUTPUT_PATIENCE;
    let flags = OFlag::O_NONBLOCK.bits();
    loop {
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(file) => {
                let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
                fcntl(&file, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
                return Ok(file);
            }
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
                if until <= Instant::now() {
                    return Err(error);
                }
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}
