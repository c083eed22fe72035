//! A sandbox's output: read from its FIFO, cut into lines, given to the invocation that it belongs
//! to, and handed to the journal.
//!
//! A runtime flushes before it answers, so whoever has the answer reads what is in the pipe and
//! has all of the event's output (`PROTOCOL.md`, "Order"). A quick event thus needs one system
//! call for its log. For events that take longer, a follower on the general runtime keeps the pipe
//! from filling up.

mod capture;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hanshu_core::ports::InvocationJournal;
use hanshu_core::{Clock, ColdStart, LogBatch, RequestId, Revision, Timestamp};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{self, Instant};

use capture::OutputCapture;

/// What the pipe is asked to hold. An unprivileged user may be refused; then it is 64 KiB.
const PIPE_BYTES: i32 = 256 * 1024;
/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;
/// How often a running event's lines are handed over.
const HAND_OVER_INTERVAL: Duration = Duration::from_millis(200);
/// The follower's rest after a full pipe, so that who only prints does not get a core of ours.
const SPAMMER_REST: Duration = Duration::from_millis(1);

/// A sandbox's output.
#[derive(Debug)]
pub(crate) struct SandboxLog {
    pipe: File,
    pipe_bytes: usize,
    revision: Arc<Revision>,
    outlet: JournalSink,
    state: Mutex<LogState>,
}

/// Where lines go, and what time it is.
#[derive(Clone)]
pub(crate) struct JournalSink {
    pub(crate) journal: Arc<dyn InvocationJournal>,
    pub(crate) clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct LogState {
    scratch: Vec<u8>,
    capture: OutputCapture,
    /// When the oldest byte that nobody took was read.
    since: Option<Timestamp>,
    owner: OutputOwner,
    /// Goes out with the first entry of the event that runs.
    cold_start: Option<ColdStart>,
}

/// Whom output belongs to.
#[derive(Clone, Copy, Debug, Default)]
enum OutputOwner {
    /// The invocation that comes first: the runtime loads.
    #[default]
    Next,
    /// An event that runs; whether the journal has nothing of it yet.
    Event { request_id: RequestId, first: bool },
    /// Nobody: no event runs.
    Late,
}

/// What an event leaves behind.
#[derive(Debug)]
pub(crate) struct EventOutput {
    /// Whether the journal has nothing of it.
    pub(crate) first: bool,
    /// The tail, where asked for.
    pub(crate) tail: Option<String>,
    /// Bytes that were cut.
    pub(crate) cut: u64,
    /// What the journal has not heard yet of how its sandbox came up.
    pub(crate) cold_start: Option<ColdStart>,
}

impl EventOutput {
    /// Of an event without output.
    pub(crate) fn nothing(cold_start: Option<ColdStart>) -> Self {
        Self { first: true, tail: None, cut: 0, cold_start }
    }
}

impl std::fmt::Debug for JournalSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}

impl SandboxLog {
    /// The output that comes out of `pipe`, a FIFO that was opened for reading and writing without
    /// blocking (so that it never ends).
    pub(crate) fn new(pipe: File, revision: Arc<Revision>, outlet: JournalSink) -> Self {
        use nix::fcntl::{FcntlArg, fcntl};
        // Best effort: a smaller pipe only makes a talkative function wait more often.
        let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let pipe_bytes = fcntl(&pipe, FcntlArg::F_GETPIPE_SZ)
            .ok()
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(READ_BYTES);
        Self { pipe, pipe_bytes, revision, outlet, state: Mutex::default() }
    }

    /// An event begins: what is in the pipe came late, unless the runtime has just loaded.
    /// `cold_start`: how the sandbox came up, if it did so for this event.
    pub(crate) fn begin(&self, request_id: RequestId, tail: bool, cold_start: Option<ColdStart>) {
        let mut state = self.lock();
        self.drain(&mut state);
        if !matches!(state.owner, OutputOwner::Next) {
            self.hand_over_rest(&mut state);
        }
        state.owner = OutputOwner::Event { request_id, first: true };
        state.cold_start = cold_start;
        if tail {
            state.capture.want_tail();
        }
    }

    /// An event has ended: what is in the pipe is its last output.
    pub(crate) fn end(&self) -> EventOutput {
        let mut state = self.lock();
        self.drain(&mut state);
        let (tail, cut) = (state.capture.tail(), self.hand_over_rest(&mut state));
        let first = matches!(state.owner, OutputOwner::Event { first: true, .. });
        state.owner = OutputOwner::Late;
        EventOutput { first, tail, cut, cold_start: state.cold_start.take() }
    }

    /// Hands over what came while no event ran. Does nothing while one does.
    pub(crate) fn late(&self) {
        let mut state = self.lock();
        if matches!(state.owner, OutputOwner::Late) {
            self.drain(&mut state);
            self.hand_over_rest(&mut state);
        }
    }

    /// Reads what the pipe holds and hands over whole lines, until dropped. Runs beside an event
    /// that takes longer than a moment, or the runtime's loading.
    pub(crate) async fn follow(&self) {
        let Ok(pipe) = self.pipe.try_clone() else { return };
        let Ok(pipe) = Receiver::from_file(pipe) else { return };
        let mut hand_over_at = Instant::now() + HAND_OVER_INTERVAL;
        loop {
            tokio::select! {
                ready = pipe.readable() => {
                    if ready.is_err() {
                        return;
                    }
                    let read = self.drain_from(&mut self.lock(), |into| pipe.try_read(into));
                    if self.pipe_bytes <= read {
                        time::sleep(SPAMMER_REST).await;
                    }
                }
                () = time::sleep_until(hand_over_at) => {}
            }
            if hand_over_at <= Instant::now() {
                self.hand_over_lines(&mut self.lock());
                hand_over_at = Instant::now() + HAND_OVER_INTERVAL;
            }
        }
    }

    fn drain(&self, state: &mut LogState) {
        self.drain_from(state, |into| (&self.pipe).read(into));
    }

    /// Reads what is there, at most as much as the pipe holds, so that somebody who writes without
    /// end does not keep us. Returns the bytes.
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
                    since.get_or_insert_with(|| self.outlet.clock.now());
                    capture.push(scratch.get(..read).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        total
    }

    fn hand_over_lines(&self, state: &mut LogState) {
        if matches!(state.owner, OutputOwner::Event { .. }) {
            let lines = state.capture.take_lines();
            self.hand_over(state, lines);
        }
    }

    /// Hands over everything and begins anew; returns the bytes cut.
    fn hand_over_rest(&self, state: &mut LogState) -> u64 {
        if state.capture.is_empty() {
            state.capture = OutputCapture::default();
            return 0;
        }
        let lines = state.capture.finish();
        let cut = state.capture.cut();
        self.hand_over(state, lines);
        state.capture = OutputCapture::default();
        cut
    }

    fn hand_over(&self, state: &mut LogState, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        let time = state.since.take().unwrap_or_else(|| self.outlet.clock.now());
        let (request_id, first, cold_start) = match &mut state.owner {
            OutputOwner::Event { request_id, first } => {
                (Some(*request_id), std::mem::replace(first, false), state.cold_start.take())
            }
            OutputOwner::Next | OutputOwner::Late => (None, false, None),
        };
        self.outlet.journal.log(LogBatch {
            request_id,
            function: self.revision.function.clone(),
            version: self.revision.version,
            time,
            lines,
            first,
            cold_start,
        });
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
