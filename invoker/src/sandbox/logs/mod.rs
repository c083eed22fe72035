//! A sandbox's output: read from its FIFO, cut into lines, assigned to the invocation that it belongs
//! to, and written to the journal.
//!
//! A runtime flushes before it answers, so that all of an event's output is in the pipe when the
//! answer is there (`PROTOCOL.md`, "Order"). A quick event thus needs one system call for its log and
//! no task that reads beside it. For events that take longer, a follower on the general runtime keeps
//! the pipe from filling up.

mod capture;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hanshu_core::ports::InvocationJournal;
use hanshu_core::{Clock, ColdStart, LogBatch, RequestId, Revision, Timestamp, lock};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{self, Instant};

use capture::OutputCapture;

/// Requested size of the pipe. An unprivileged user may be refused; then it is 64 KiB.
const PIPE_BYTES: i32 = 256 * 1024;
/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// How often a running event's lines are written to the journal.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);
/// The follower's pause after a full pipe, so that a function that only prints does not occupy a core
/// of the server.
const FULL_PIPE_PAUSE: Duration = Duration::from_millis(1);

/// A sandbox's output.
#[derive(Debug)]
pub(crate) struct SandboxLog {
    pipe: File,
    pipe_bytes: usize,
    revision: Arc<Revision>,
    sink: JournalSink,
    state: Mutex<LogState>,
}

/// The journal that lines and records go to, and the clock that dates them.
#[derive(Clone)]
pub(crate) struct JournalSink {
    pub(crate) journal: Arc<dyn InvocationJournal>,
    pub(crate) clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct LogState {
    scratch: Vec<u8>,
    capture: OutputCapture,
    /// When the oldest byte was read that is not in the journal.
    since: Option<Timestamp>,
    owner: OutputOwner,
    /// Written with the first entry of the event that runs.
    cold_start: Option<ColdStart>,
}

/// The invocation that output belongs to.
#[derive(Clone, Copy, Debug, Default)]
enum OutputOwner {
    /// The first one, which has not begun: the runtime loads.
    #[default]
    Next,
    /// One that runs; `first`: nothing of it is in the journal.
    Event { request_id: RequestId, first: bool },
    /// None: no event runs.
    None,
}

/// What is known of an event's output at its end.
#[derive(Debug)]
pub(crate) struct EventOutput {
    /// Nothing of it is in the journal.
    pub(crate) first: bool,
    /// Its last bytes, where a caller asked for them.
    pub(crate) tail: Option<String>,
    /// Bytes that were dropped.
    pub(crate) dropped_bytes: u64,
    /// How its sandbox came up, unless that is in the journal.
    pub(crate) cold_start: Option<ColdStart>,
}

impl EventOutput {
    /// That of an event without output.
    pub(crate) fn empty(cold_start: Option<ColdStart>) -> Self {
        Self { first: true, tail: None, dropped_bytes: 0, cold_start }
    }
}

impl std::fmt::Debug for JournalSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}

impl SandboxLog {
    /// The output that comes out of `pipe`, a FIFO in non-blocking mode that was opened for reading and
    /// writing, so that it has no end of file.
    pub(crate) fn new(pipe: File, revision: Arc<Revision>, sink: JournalSink) -> Self {
        use nix::fcntl::{FcntlArg, fcntl};
        // Best effort: with a smaller pipe a function that prints much waits more often.
        let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let pipe_bytes = fcntl(&pipe, FcntlArg::F_GETPIPE_SZ)
            .ok()
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(READ_BYTES);
        Self { pipe, pipe_bytes, revision, sink, state: Mutex::default() }
    }

    /// An event begins: output in the pipe belongs to no event, unless the runtime has just loaded.
    /// `cold_start`: how the sandbox came up, if it was started for this event.
    pub(crate) fn begin(&self, request_id: RequestId, tail: bool, cold_start: Option<ColdStart>) {
        let mut state = lock(&self.state);
        self.drain(&mut state);
        if !matches!(state.owner, OutputOwner::Next) {
            self.write_rest(&mut state);
        }
        state.owner = OutputOwner::Event { request_id, first: true };
        state.cold_start = cold_start;
        if tail {
            state.capture.want_tail();
        }
    }

    /// The event has ended: output in the pipe is its last.
    pub(crate) fn end(&self) -> EventOutput {
        let mut state = lock(&self.state);
        self.drain(&mut state);
        let (tail, dropped_bytes) = (state.capture.tail(), self.write_rest(&mut state));
        let first = matches!(state.owner, OutputOwner::Event { first: true, .. });
        state.owner = OutputOwner::None;
        EventOutput { first, tail, dropped_bytes, cold_start: state.cold_start.take() }
    }

    /// Writes output that came while no event ran. Does nothing while one runs.
    pub(crate) fn write_unowned(&self) {
        let mut state = lock(&self.state);
        if matches!(state.owner, OutputOwner::None) {
            self.drain(&mut state);
            self.write_rest(&mut state);
        }
    }

    /// Reads the pipe and writes whole lines until it is dropped. Runs beside an event that takes
    /// longer, or beside the runtime's loading.
    pub(crate) async fn follow(&self) {
        let Ok(pipe) = self.pipe.try_clone() else { return };
        let Ok(pipe) = Receiver::from_file(pipe) else { return };
        let mut write_at = Instant::now() + WRITE_INTERVAL;
        loop {
            tokio::select! {
                ready = pipe.readable() => {
                    if ready.is_err() {
                        return;
                    }
                    let read = self.drain_from(&mut lock(&self.state), |into| pipe.try_read(into));
                    if self.pipe_bytes <= read {
                        time::sleep(FULL_PIPE_PAUSE).await;
                    }
                }
                () = time::sleep_until(write_at) => {}
            }
            if write_at <= Instant::now() {
                self.write_lines(&mut lock(&self.state));
                write_at = Instant::now() + WRITE_INTERVAL;
            }
        }
    }

    fn drain(&self, state: &mut LogState) {
        self.drain_from(state, |into| (&self.pipe).read(into));
    }

    /// Reads what is available, at most as much as the pipe holds, so that a function that prints
    /// without end does not block its reader. Returns the bytes.
    fn drain_from(
        &self,
        state: &mut LogState,
        read: impl Fn(&mut [u8]) -> io::Result<usize>,
    ) -> usize {
        let LogState { scratch, capture, since, .. } = state;
        if scratch.is_empty() {
            *scratch = vec![0; READ_BYTES];
        }
        let mut total = 0;
        while total < self.pipe_bytes {
            match read(scratch) {
                Ok(0) => break,
                Ok(read) => {
                    total += read;
                    since.get_or_insert_with(|| self.sink.clock.now());
                    capture.push(scratch.get(..read).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        total
    }

    fn write_lines(&self, state: &mut LogState) {
        if matches!(state.owner, OutputOwner::Event { .. }) {
            let lines = state.capture.take_lines();
            self.write(state, lines);
        }
    }

    /// Writes everything and starts an empty capture; returns the bytes that were dropped.
    fn write_rest(&self, state: &mut LogState) -> u64 {
        if state.capture.is_empty() {
            state.capture = OutputCapture::default();
            return 0;
        }
        let lines = state.capture.finish();
        let dropped_bytes = state.capture.dropped_bytes();
        self.write(state, lines);
        state.capture = OutputCapture::default();
        dropped_bytes
    }

    fn write(&self, state: &mut LogState, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let time = state.since.take().unwrap_or_else(|| self.sink.clock.now());
        let (request_id, first, cold_start) = match &mut state.owner {
            OutputOwner::Event { request_id, first } => {
                (Some(*request_id), std::mem::replace(first, false), state.cold_start.take())
            }
            OutputOwner::Next | OutputOwner::None => (None, false, None),
        };
        self.sink.journal.log(LogBatch {
            request_id,
            function: self.revision.function.clone(),
            version: self.revision.version,
            time,
            lines,
            first,
            cold_start,
        });
    }
}
