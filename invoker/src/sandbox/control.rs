//! The shim's connection: how a sandbox is told to end, and how it reports its end.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hanshu_runtimes::wire::{ExitedMessage, FrameHeader, FrameKind, HEADER_LEN};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time;

use crate::sandbox::exchange::{ConnectionError, DataConnection, ReceivedFrame};

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SandboxEnd {
    /// The runtime's process ended, as the shim reports.
    Exited(ExitedMessage),
    /// The shim itself is gone, or broke the protocol.
    Lost,
}

/// The reading half of the shim's connection: its holder learns of the sandbox's end.
#[derive(Debug)]
pub(crate) struct ShimConnection {
    conn: DataConnection,
}

/// The writing half of the shim's connection, and what is known of the sandbox's end.
#[derive(Debug)]
pub(crate) struct SandboxHandle {
    control: StdStream,
    /// A second handle of the data connection, to wake its reader.
    data: StdStream,
    end: watch::Sender<Option<SandboxEnd>>,
    killed: AtomicBool,
    killed_for_shutdown: AtomicBool,
}

impl ShimConnection {
    /// Takes the shim's connection; returns a second handle of it, too.
    pub(crate) fn new(stream: UnixStream) -> io::Result<(Self, StdStream)> {
        let std = stream.into_std()?;
        let second = std.try_clone()?;
        Ok((Self { conn: DataConnection::new(std)? }, second))
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

    /// Whether the shim is connected and has sent nothing.
    pub(crate) fn is_silent(&self) -> bool {
        self.conn.is_fresh()
    }

    /// The shim's next frame. May be dropped and called again.
    pub(crate) async fn read(&mut self) -> Result<ReceivedFrame, ConnectionError> {
        self.conn.read_frame().await
    }

    /// Waits for the sandbox's end. May be dropped and called again.
    pub(crate) async fn end(&mut self) -> SandboxEnd {
        match self.read().await {
            Ok(ReceivedFrame { header, body }) if header.kind == FrameKind::Exited => {
                serde_json::from_slice(&body).map_or(SandboxEnd::Lost, SandboxEnd::Exited)
            }
            Ok(_) | Err(_) => SandboxEnd::Lost,
        }
    }
}

impl SandboxHandle {
    pub(crate) fn new(control: StdStream, data: StdStream) -> Self {
        let end = watch::Sender::new(None);
        Self { control, data, end, killed: false.into(), killed_for_shutdown: false.into() }
    }

    /// Makes the shim end everything in its sandbox, without waiting for it.
    pub(crate) fn kill(&self) {
        if self.killed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.send(FrameKind::Kill);
    }

    fn send(&self, kind: FrameKind) {
        if let Ok(header) = FrameHeader::new(kind, 0, 0) {
            // A shim that is gone, or that does not read, is stopped by the backend.
            let _ = (&self.control).write_all(&header.encode());
        }
    }

    /// Makes the shim send SIGTERM to the runtime, or to the script that runs, without waiting for its
    /// effect.
    pub(crate) fn terminate(&self) {
        self.send(FrameKind::Term);
    }

    /// The same as [`SandboxHandle::kill`] because the node stops: the event that runs did nothing wrong.
    pub(crate) fn kill_for_shutdown(&self) {
        self.killed_for_shutdown.store(true, Ordering::Release);
        self.kill();
    }

    /// Whether [`SandboxHandle::kill_for_shutdown`] was called.
    pub(crate) fn was_killed_for_shutdown(&self) -> bool {
        self.killed_for_shutdown.load(Ordering::Acquire)
    }

    /// Notes that the sandbox has ended, and wakes whoever waits for its answer. An answer that was
    /// sent before can still be read.
    pub(crate) fn ended(&self, end: SandboxEnd) {
        self.end.send_replace(Some(end));
        let _ = self.data.shutdown(Shutdown::Both);
    }

    /// Whether the sandbox is known to have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Closes the connection, so that the shim ends and [`ShimConnection::end`] returns.
    pub(crate) fn close(&self) {
        let _ = self.control.shutdown(Shutdown::Both);
    }

    /// How the sandbox ended, if that is known within this time.
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
