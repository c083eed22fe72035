//! Signals delivered as bytes in a pipe, so that one `poll` waits for them too.
//!
//! Handlers rather than a blocked mask, since children inherit a mask, but never a handler.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use signal_hook::consts::{FORBIDDEN, SIGCHLD, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// The read ends of the signals that the shim handles.
#[derive(Debug)]
pub(super) struct SignalPipes {
    child: UnixStream,
    stop: UnixStream,
}

impl SignalPipes {
    /// Installs the handlers; no signal is lost after this.
    pub(super) fn listen() -> io::Result<Self> {
        unignore()?;
        let (child, child_end) = UnixStream::pair()?;
        let (stop, stop_end) = UnixStream::pair()?;
        child.set_nonblocking(true)?;
        stop.set_nonblocking(true)?;
        pipe::register(SIGCHLD, child_end)?;
        pipe::register(SIGTERM, stop_end.try_clone()?)?;
        pipe::register(SIGINT, stop_end)?;
        Ok(Self { child, stop })
    }

    /// Readable when a child may have ended.
    pub(super) fn child(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }

    /// Readable after SIGTERM or SIGINT.
    pub(super) fn stop(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    pub(super) fn drain_child(&self) {
        drain(&self.child);
    }

    pub(super) fn drain_stop(&self) {
        drain(&self.stop);
    }
}

/// Signals that the server's parent ignored (`nohup`, a script's background job) would be ignored in
/// every function too. An empty handler has the same effect here and is reset in a child.
fn unignore() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    for signal in 1..=31 {
        let is_ignored = ignored.unwrap_or_default() >> (signal - 1) & 1 == 1;
        // The standard library restores SIGPIPE in children.
        if is_ignored && signal != SIGPIPE && !FORBIDDEN.contains(&signal) {
            flag::register(signal, Arc::default())?;
        }
    }
    Ok(())
}

/// Reads all that is there. The stream is non-blocking: every error means that it is empty.
fn drain(mut stream: &UnixStream) {
    let mut bytes = [0; 64];
    while matches!(stream.read(&mut bytes), Ok(len) if len != 0) {}
}
