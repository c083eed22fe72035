//! A sandbox's data connection: one buffer, and one reactor at a time.
//!
//! `tokio::net::UnixStream` was not enough: it is registered for reading and writing, so that each event
//! woke the reactor once more when the runtime read it (five wake-ups for a warm call, two now), and it
//! stays with the reactor of the runtime that made it, so that an answer took a hop between threads.

use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::os::unix::net::UnixStream as StdStream;
use std::task::{Context, Waker};

use hanshu_runtimes::wire::{FrameError, FrameHeader, HEADER_LEN};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read};
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, Id};

/// Bytes of the buffer: most answers fit whole; larger bodies are read into memory of their own.
const BUFFER_BYTES: usize = 16 * 1024;

/// The connection that carries events. Its holder uses the sandbox.
#[derive(Debug)]
pub(crate) struct DataConnection {
    /// Registered for reading only.
    stream: Option<AsyncFd<StdStream>>,
    /// The runtime with whose reactor the stream is registered.
    reactor: Id,
    /// `buffer[..filled]` was read and belongs to no frame yet.
    buffer: Box<[u8]>,
    filled: usize,
    /// A body larger than the buffer, while it is being read.
    large: Option<LargeBody>,
}

#[derive(Debug)]
struct LargeBody {
    header: FrameHeader,
    body: Vec<u8>,
}

/// A frame that was read.
#[derive(Debug)]
pub(crate) struct ReceivedFrame {
    pub(crate) header: FrameHeader,
    pub(crate) body: bytes::Bytes,
}

/// Why the connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The other side has closed it, between frames or within one.
    #[error("the runtime's connection ended")]
    Ended,
    /// The other side has closed it before it had read all that was sent: the event was not begun.
    #[error("the runtime ended before it had read the event")]
    Unread,
    /// A system call failed.
    #[error("the runtime's connection failed: {0}")]
    Io(#[source] io::Error),
    /// The other side broke the protocol.
    #[error("the runtime broke the protocol: {0}")]
    Malformed(#[from] FrameError),
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::NotConnected => Self::Ended,
            // Linux reports so that the other end was closed with unread bytes in it.
            ErrorKind::ConnectionReset => Self::Unread,
            _ => Self::Io(error),
        }
    }
}

impl DataConnection {
    /// Takes a stream in non-blocking mode and registers it with the current runtime.
    ///
    /// # Errors
    /// There is no runtime, or it cannot register the stream.
    pub(crate) fn new(stream: StdStream) -> io::Result<Self> {
        let reactor = Handle::try_current().map_err(io::Error::other)?.id();
        Ok(Self {
            stream: Some(register(stream, Interest::READABLE)?),
            reactor,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            filled: 0,
            large: None,
        })
    }

    /// Registers the connection with the reactor of the caller's runtime, so that an answer wakes the
    /// caller without a hop between threads. Two system calls when the runtime changes.
    fn register_here(&mut self) -> io::Result<&StdStream> {
        let here = Handle::try_current().map_err(io::Error::other)?.id();
        if self.reactor != here
            && let Some(stream) = self.stream.take()
        {
            self.stream = Some(register(stream.into_inner(), Interest::READABLE)?);
            self.reactor = here;
        }
        let stream = self.stream.as_ref().ok_or_else(|| io::Error::from(ErrorKind::NotConnected));
        stream.map(AsyncFd::get_ref)
    }

    /// Writes the rest of three parts after `sent` bytes, and advances `sent`. May be dropped and called
    /// again.
    pub(crate) async fn write_parts(
        &mut self,
        parts: [&[u8]; 3],
        sent: &mut usize,
    ) -> Result<(), ConnectionError> {
        let mut stream = self.register_here()?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut readiness = None;
        while *sent < total {
            let mut skip = *sent;
            let slices = parts.map(|part| {
                let rest = part.get(skip.min(part.len())..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                IoSlice::new(rest)
            });
            match stream.write_vectored(&slices) {
                Ok(0) => return Err(ConnectionError::Ended),
                Ok(written) => *sent += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let readiness = match &mut readiness {
                        Some(readiness) => readiness,
                        None => readiness.insert(WriteReadiness::of(stream)?),
                    };
                    readiness.wait().await?;
                }
                Err(error) if error.kind() == ErrorKind::BrokenPipe && *sent < total => {
                    return Err(ConnectionError::Unread);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads one frame without a head. May be dropped and called again.
    pub(crate) async fn read_frame(&mut self) -> Result<ReceivedFrame, ConnectionError> {
        self.register_here()?;
        while self.large.is_none() {
            if let Some(frame) = self.buffered_frame()? {
                return Ok(frame);
            }
            if self.large.is_none() {
                let Self { stream: Some(stream), buffer, filled, .. } = self else {
                    return Err(ConnectionError::Ended);
                };
                let room = buffer.get_mut(*filled..).unwrap_or_default();
                *filled += receive(stream, room.len(), |stream| read(stream, &mut *room)).await?;
            }
        }
        self.read_large().await
    }

    /// Whether the other side is connected and has sent nothing unasked, so that a sandbox that died or
    /// misbehaved while idle is given no event. No system call unless the reactor has seen something.
    pub(crate) fn is_fresh(&self) -> bool {
        let Some(stream) = &self.stream else { return false };
        if 0 < self.filled {
            return false;
        }
        if stream.poll_read_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
            return true;
        }
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(stream.get_ref(), &mut [0], flags) == Err(Errno::WOULDBLOCK)
    }

    /// Whether bytes were read that belong to no frame yet.
    pub(crate) fn has_surplus(&self) -> bool {
        0 < self.filled
    }

    /// A frame that is wholly in the buffer. Begins `large` for one that cannot fit.
    fn buffered_frame(&mut self) -> Result<Option<ReceivedFrame>, ConnectionError> {
        let filled = self.buffer.get(..self.filled).unwrap_or_default();
        let Some((header, rest)) = filled.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = FrameHeader::decode(header)?;
        if usize::from(header.head_len) != 0 {
            return Err(FrameError::HeadLength { kind: header.kind, found: header.head_len }.into());
        }
        let len = header.body_len();
        if let Some(body) = rest.get(..len) {
            let body = bytes::Bytes::copy_from_slice(body);
            self.buffer.copy_within(HEADER_LEN + len..self.filled, 0);
            self.filled -= HEADER_LEN + len;
            return Ok(Some(ReceivedFrame { header, body }));
        }
        if self.buffer.len() < HEADER_LEN + len {
            let mut body = Vec::with_capacity(len);
            body.extend_from_slice(rest);
            self.filled = 0;
            self.large = Some(LargeBody { header, body });
        }
        Ok(None)
    }

    async fn read_large(&mut self) -> Result<ReceivedFrame, ConnectionError> {
        let Self { stream: Some(stream), large, .. } = self else {
            return Err(ConnectionError::Ended);
        };
        loop {
            let Some(LargeBody { header, body }) = large else {
                return Err(ConnectionError::Ended);
            };
            let left = header.body_len().saturating_sub(body.len());
            if left == 0 {
                break;
            }
            let room = body.capacity() - body.len();
            receive(stream, room, |stream| read(stream, spare_capacity(body))).await?;
            if header.body_len() < body.len() {
                // First bytes of a frame that must not be sent yet.
                self.filled = body.len() - header.body_len();
                body.truncate(header.body_len());
            }
        }
        let Some(LargeBody { header, body }) = large.take() else {
            return Err(ConnectionError::Ended);
        };
        Ok(ReceivedFrame { header, body: body.into() })
    }
}

/// A second handle that is registered for writing, while an event is sent that does not fit into the
/// socket's buffer.
struct WriteReadiness(AsyncFd<StdStream>);

impl WriteReadiness {
    fn of(stream: &StdStream) -> io::Result<Self> {
        register(stream.try_clone()?, Interest::WRITABLE).map(Self)
    }

    /// Waits until more may be written.
    async fn wait(&mut self) -> io::Result<()> {
        self.0.writable().await?.clear_ready();
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "unsound for types that change their descriptor; a standard stream keeps its own"
)]
fn register(stream: StdStream, interest: Interest) -> io::Result<AsyncFd<StdStream>> {
    AsyncFd::with_interest(stream, interest)
}

/// Reads what is available, at least one byte and at most `room` bytes.
async fn receive(
    stream: &AsyncFd<StdStream>,
    room: usize,
    mut read: impl FnMut(&StdStream) -> Result<usize, Errno>,
) -> Result<usize, ConnectionError> {
    loop {
        let mut ready = stream.readable().await?;
        match read(stream.get_ref()) {
            Ok(0) => return Err(ConnectionError::Ended),
            Ok(bytes) => {
                if bytes < room {
                    // The socket is empty: the reactor reports what comes next.
                    ready.clear_ready();
                }
                return Ok(bytes);
            }
            Err(Errno::WOULDBLOCK) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}
