//! The shim's connection: how a sandbox is told to end, and tells how it ended.

use std::io::{self, Write};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hanshu_runtimes::wire::{ExitedMessage, FrameHeader, FrameKind, HEADER_LEN};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time;

use crate::sandbox::exchange::{ConnectionError, DataConnection, DataFrame};

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SandboxEnd {
    /// The runtime's process ended, says the shim.
    Exited(ExitedMessage),
    /// The shim itself is gone, or broke the protocol.
    Lost,
}

/// The reading half: whoever has it watches over the sandbox.
#[derive(Debug)]
pub(crate) struct ShimConnection {
    conn: DataConnection,
}

/// The writing half, and what became of the sandbox.
#[derive(Debug)]
pub(crate) struct SandboxHandle {
    control: StdStream,
    /// A second handle of the data connection, to wake whoever reads from it.
    data: StdStream,
    end: watch::Sender<Option<SandboxEnd>>,
    killed: AtomicBool,
    taken_away: AtomicBool,
}

impl ShimConnection {
    /// Takes the shim's connection and a second handle of it.
    pub(crate) fn new(stream: UnixStream) -> io::Result<(Self, StdStream)> {
        let std = stream.into_std()?;
        let twin = std.try_clone()?;
        Ok((Self { conn: DataConnection::new(std)? }, twin))
    }

    /// Sends the shim a frame with a JSON body.
    pub(crate) async fn send_json(
        &mut self,
        kind: FrameKind,
        body: &impl Serialize,
    ) -> Result<(), ConnectionError> {
        let body = serde_json::to_vec(body).map_err(io::Error::other)?;
        let header = FrameHeader::new(kind, 0, body.len()).map_err(io::Error::other)?.encode();
        self.conn.write_parts([&header, &body, &[]], &mut 0).await
    }

    /// Whether the shim is there and has nothing to say.
    pub(crate) fn is_silent(&self) -> bool {
        self.conn.is_fresh()
    }

    /// The shim's next frame. May be dropped and called again.
    pub(crate) async fn read(&mut self) -> Result<DataFrame, ConnectionError> {
        self.conn.read_frame().await
    }

    /// Waits for the sandbox's end. May be dropped and called again.
    pub(crate) async fn end(&mut self) -> SandboxEnd {
        match self.read().await {
            Ok(DataFrame { header, body }) if header.kind == FrameKind::Exited => {
                serde_json::from_slice(&body).map_or(SandboxEnd::Lost, SandboxEnd::Exited)
            }
            Ok(_) | Err(_) => SandboxEnd::Lost,
        }
    }
}

impl SandboxHandle {
    pub(crate) fn new(control: StdStream, data: StdStream) -> Self {
        let end = watch::Sender::new(None);
        Self { control, data, end, killed: false.into(), taken_away: false.into() }
    }

    /// Makes the shim end everything in its sandbox, without waiting for it.
    pub(crate) fn kill(&self) {
        if self.killed.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Ok(header) = FrameHeader::new(FrameKind::Kill, 0, 0) {
            // A shim that is gone, or that does not read, is stopped by the backend.
            let _ = (&self.control).write_all(&header.encode());
        }
    }

    /// Ends everything although the event that runs has done nothing wrong: the node stops.
    pub(crate) fn take_away(&self) {
        self.taken_away.store(true, Ordering::Release);
        self.kill();
    }

    /// Whether it was `take_away` that ended it.
    pub(crate) fn was_taken_away(&self) -> bool {
        self.taken_away.load(Ordering::Acquire)
    }

    /// Says that the sandbox has ended, and wakes whoever waits for its answer. What was answered
    /// before can still be read.
    pub(crate) fn ended(&self, end: SandboxEnd) {
        self.end.send_replace(Some(end));
        let _ = self.data.shutdown(std::net::Shutdown::Both);
    }

    /// Whether it has ended, as far as is known.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Ends the connection, so that the shim ends and `ShimConnection::end` returns.
    pub(crate) fn hang_up(&self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
    }

    /// How it ended, once known; waits for that at most so long.
    pub(crate) async fn end_within(&self, wait: Duration) -> Option<SandboxEnd> {
        let mut end = self.end.subscribe();
        let known = end.wait_for(Option::is_some);
        time::timeout(wait, known).await.ok()?.ok()?.clone()
    }
}

/// Sends a frame with a JSON body.
pub(crate) async fn send_json(
    stream: &mut UnixStream,
    kind: FrameKind,
    body: &impl Serialize,
) -> io::Result<()> {
    let body = serde_json::to_vec(body).map_err(io::Error::other)?;
    let header = FrameHeader::new(kind, 0, body.len()).map_err(io::Error::other)?.encode();
    let mut frame = Vec::with_capacity(HEADER_LEN + body.len());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&body);
    stream.write_all(&frame).await
}
