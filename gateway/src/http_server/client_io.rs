//! A client's socket with a deadline for writes that the client does not read, and an orderly
//! close.
//!
//! Closing a socket with unread bytes in it resets the connection, and the reset can destroy an
//! answer that the client has not read yet. So the socket is half-closed first, and what the client
//! still sends is discarded up to a bound: so a refusal in the middle of a large body arrives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Bytes that are discarded at the end, at most.
const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long discarding may take.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);

/// A client's socket; see the module.
#[derive(Debug)]
pub(super) struct ClientIo {
    stream: TcpStream,
    write_timeout: Duration,
    /// Runs while the client reads nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    linger: LingerState,
}

#[derive(Debug)]
enum LingerState {
    NotYet,
    Draining { left: usize, deadline: Pin<Box<Sleep>> },
    Done,
}

impl ClientIo {
    pub(super) fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        Self { stream, write_timeout, stalled: None, linger: LingerState::NotYet }
    }

    /// Gives a write that cannot go on its deadline.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(stalled.as_mut().poll(cx));
        let why = "the client does not read its answer";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let LingerState::Draining { left, deadline } = &mut self.linger else {
            return Poll::Ready(());
        };
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 16 * 1024];
        while 0 < *left {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            match buffer.filled().len() {
                0 => return Poll::Ready(()),
                bytes => *left = left.saturating_sub(bytes),
            }
            if read.is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.linger, LingerState::NotYet) {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            let deadline = Box::pin(tokio::time::sleep(LINGER_TIMEOUT));
            self.linger = LingerState::Draining { left: LINGER_BYTES_MAX, deadline };
        }
        ready!(self.poll_drain(cx));
        self.linger = LingerState::Done;
        Poll::Ready(Ok(()))
    }
}
