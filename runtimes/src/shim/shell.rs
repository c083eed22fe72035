//! The adapter *shell*: starts a script for each event; nothing runs between events.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::adapter_context::AdapterContext;
use super::invocation_response::InvocationResponse;
use super::processes::{LaunchSpec, ProcessEnd, ScriptProcess};
use super::runtime_connection::{AfterResponse, ReceivedEvent, RuntimeConnection};
use super::spawn_thread;
use crate::wire::{BODY_BYTES_MAX, InitMessage, RuntimeFailure, status};

/// How long the output of a script that has ended may stay open. By then every process that holds
/// it is killed; only outside of a sandbox, in tests, can one escape that.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);
/// The most bytes that are read of a script's first line.
const FIRST_LINE_MAX: u64 = 512;

/// Serves events until the invoker is gone.
pub(super) fn serve(sandbox: &Arc<AdapterContext>) -> io::Result<()> {
    let (mut connection, init) = RuntimeConnection::connect(&sandbox.dir)?;
    if let Err(failure) = check(&init) {
        return connection.refuse(&failure);
    }
    connection.ready()?;
    while let Some(event) = connection.next()? {
        let name = event.name;
        let response = run(sandbox, event);
        connection.respond(name, &response, AfterResponse::Continue)?;
    }
    Ok(())
}

/// Checks that the handler is an executable script with an interpreter that exists.
fn check(init: &InitMessage) -> Result<(), RuntimeFailure> {
    let handler = &init.handler;
    let missing = |why: String| {
        RuntimeFailure::new(status::HANDLER_NOT_FOUND, format!("the file `{handler}` {why}"))
    };
    let path = Path::new(&init.cwd).join(handler);
    let Ok(found) = fs::metadata(&path) else { return Err(missing("does not exist".to_owned())) };
    if !found.is_file() {
        return Err(missing("is no file".to_owned()));
    }
    let first_line =
        first_line(&path).map_err(|error| missing(format!("is unreadable: {error}")))?;
    let Some(interpreter) = first_line.strip_prefix("#!") else {
        return Err(missing("does not start with `#!`".to_owned()));
    };
    if found.permissions().mode() & 0o111 == 0 {
        return Err(missing("is not executable (`chmod +x` it)".to_owned()));
    }
    let program = interpreter.split_ascii_whitespace().next().unwrap_or_default();
    if program.is_empty() || !Path::new(program).exists() {
        return Err(missing(format!("is to be run by `{program}`, which is not here")));
    }
    Ok(())
}

fn first_line(path: &Path) -> io::Result<String> {
    let mut start = Vec::new();
    File::open(path)?.take(FIRST_LINE_MAX).read_to_end(&mut start)?;
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

/// Runs the script for one event. When this returns, no process of it is left.
fn run(sandbox: &Arc<AdapterContext>, event: ReceivedEvent) -> InvocationResponse {
    let kills_before = sandbox.oom_kills.count();
    let ended =
        start(sandbox, &event).and_then(|script| run_to_end(sandbox, script, event.payload));
    let (end, output) = match ended {
        Ok(ended) => ended,
        Err(error) => {
            sandbox.processes.kill_all_and_wait();
            let message = format!("the script cannot be run: {error}");
            return InvocationResponse::failed(status::CODE_ERROR, message);
        }
    };
    let oom_killed = kills_before < sandbox.oom_kills.count();
    match (output, end) {
        (ScriptOutput::TooLarge, _) => InvocationResponse::too_large(),
        (ScriptOutput::Whole(bytes), ProcessEnd::Code(0)) => InvocationResponse::from_output(bytes),
        (ScriptOutput::Whole(_), _) if oom_killed => {
            let memory_mb = sandbox.start.init.memory_mb;
            InvocationResponse::ended(
                status::OUT_OF_MEMORY,
                format!("Task memory exceeded {memory_mb} MB"),
            )
        }
        (ScriptOutput::Whole(_), ProcessEnd::Code(code)) => InvocationResponse::failed(
            status::USER_ERROR,
            format!("the script ended with status {code}"),
        ),
        (ScriptOutput::Whole(_), ProcessEnd::Signal(signal)) => {
            let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
            InvocationResponse::ended(
                status::PROCESS_EXITED,
                format!("the script was killed by {name} ({signal})"),
            )
        }
    }
}

fn start(sandbox: &AdapterContext, event: &ReceivedEvent) -> io::Result<ScriptProcess> {
    let origin = event.head.origin.name();
    let start = &sandbox.start;
    sandbox.processes.start_script(&LaunchSpec {
        argv: &start.argv,
        env: &start.env,
        more_env: &[("SCF_REQUEST_ID", event.head.request_id()), ("TRIGGER_SRC", origin)],
        cwd: &start.init.cwd,
    })
}

/// What a script wrote to its standard output.
#[derive(Debug)]
enum ScriptOutput {
    Whole(Vec<u8>),
    TooLarge,
}

/// Writes the event to the script and waits for it to end, for which the invoker has a deadline.
/// Then kills what it left running, which also closes its output.
fn run_to_end(
    sandbox: &Arc<AdapterContext>,
    script: ScriptProcess,
    payload: Vec<u8>,
) -> io::Result<(ProcessEnd, ScriptOutput)> {
    let ScriptProcess { mut stdin, stdout, end } = script;
    spawn_thread("stdin", move || {
        // A script may ignore its event.
        let _ = stdin.write_all(&payload);
    })?;
    let output = collect(sandbox, stdout)?;
    let end = end.recv().map_err(io::Error::other)?;
    sandbox.processes.kill_all_and_wait();
    let output = output.recv_timeout(OUTPUT_PATIENCE).map_err(|_| {
        io::Error::other("something that it started keeps its standard output open")
    })?;
    Ok((end, output))
}

/// Reads the output on a thread of its own, and kills the script when it writes too much.
fn collect(
    sandbox: &Arc<AdapterContext>,
    stdout: ChildStdout,
) -> io::Result<Receiver<ScriptOutput>> {
    let sandbox = Arc::clone(sandbox);
    let (sender, output) = sync_channel(1);
    spawn_thread("stdout", move || {
        let mut bytes = Vec::new();
        let limit = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX) + 1;
        // What was read before an error is the output.
        let _ = stdout.take(limit).read_to_end(&mut bytes);
        let result = if BODY_BYTES_MAX < bytes.len() {
            sandbox.processes.kill_all();
            ScriptOutput::TooLarge
        } else {
            ScriptOutput::Whole(bytes)
        };
        let _ = sender.try_send(result);
    })?;
    Ok(output)
}
