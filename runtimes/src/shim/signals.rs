//! Signals as bytes in a pipe, so that one `poll` waits for them too.
//!
//! Handlers and not a blocked mask: children inherit a mask, but never a handler.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use signal_hook::consts::{FORBIDDEN, SIGCHLD, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// The signals that the shim heeds.
#[derive(Debug)]
pub(super) struct SignalPipes {
    child: UnixStream,
    stop: UnixStream,
}

impl SignalPipes {
    /// From now on, no such signal is lost.
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

    /// Readable when the shim was asked to stop.
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

/// What the server's parent ignored (`nohup`, a script's background job) would be ignored in every
/// function too. A handler that does nothing is the same to us, and is none to a child.
fn unignore() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    for signal in 1..=31 {
        let is_ignored = ignored.unwrap_or_default() >> (signal - 1) & 1 == 1;
        // The standard library gives children their SIGPIPE back.
        if is_ignored && signal != SIGPIPE && !FORBIDDEN.contains(&signal) {
            flag::register(signal, Arc::default())?;
        }
    }
    Ok(())
}

/// Takes all that is there. The stream does not block, so that every error means "no more".
fn drain(mut stream: &UnixStream) {
    let mut bytes = [0; 64];
    while matches!(stream.read(&mut bytes), Ok(len) if len != 0) {}
}
