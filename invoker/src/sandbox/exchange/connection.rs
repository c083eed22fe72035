//! A sandbox's data connection: one buffer, and one reactor at a time.

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

/// Holds a usual answer whole; larger bodies are read straight into their own memory.
const BUFFER_BYTES: usize = 16 * 1024;

/// The connection over which events go. Whoever holds it, holds the sandbox.
#[derive(Debug)]
pub(crate) struct DataConnection {
    /// Watched for something to read only: the other side's reading would wake us once more for
    /// each event.
    stream: Option<AsyncFd<StdStream>>,
    /// The runtime whose reactor watches the stream.
    reactor: Id,
    /// `buffer[..filled]` was read and not yet used.
    buffer: Box<[u8]>,
    filled: usize,
    /// A body that does not fit into the buffer, while it is being read.
    large: Option<LargeBody>,
}

#[derive(Debug)]
struct LargeBody {
    header: FrameHeader,
    body: Vec<u8>,
}

/// A frame that was read.
#[derive(Debug)]
pub(crate) struct DataFrame {
    pub(crate) header: FrameHeader,
    pub(crate) body: bytes::Bytes,
}

/// Why the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The other side is gone, at a frame's border or not.
    #[error("the runtime's connection ended")]
    Ended,
    /// The other side is gone, and had not read all that was sent: nothing was begun with it.
    #[error("the runtime ended before it had read the event")]
    Unread,
    /// The system failed.
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
            // What Linux says of a local stream whose other end was closed with unread bytes in it.
            ErrorKind::ConnectionReset => Self::Unread,
            _ => Self::Io(error),
        }
    }
}

impl DataConnection {
    /// A connection that does not block, watched by the current runtime.
    ///
    /// # Errors
    /// There is no runtime, or it cannot watch the connection.
    pub(crate) fn new(stream: StdStream) -> io::Result<Self> {
        let reactor = Handle::try_current().map_err(io::Error::other)?.id();
        Ok(Self {
            stream: Some(watched(stream, Interest::READABLE)?),
            reactor,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            filled: 0,
            large: None,
        })
    }

    /// Moves the connection to the reactor of the runtime that the caller runs on, so that an
    /// answer wakes the caller without a hop between threads. Two system calls when it changes.
    fn here(&mut self) -> io::Result<&StdStream> {
        let here = Handle::try_current().map_err(io::Error::other)?.id();
        if self.reactor != here
            && let Some(stream) = self.stream.take()
        {
            self.stream = Some(watched(stream.into_inner(), Interest::READABLE)?);
            self.reactor = here;
        }
        let stream = self.stream.as_ref().ok_or_else(|| io::Error::from(ErrorKind::NotConnected));
        stream.map(AsyncFd::get_ref)
    }

    /// Writes what is left of three parts after `sent` bytes, and counts along. May be dropped and
    /// called again.
    pub(crate) async fn write_parts(
        &mut self,
        parts: [&[u8]; 3],
        sent: &mut usize,
    ) -> Result<(), ConnectionError> {
        let mut stream = self.here()?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut room = None;
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
                    let room = match &mut room {
                        Some(room) => room,
                        None => room.insert(WriteReadiness::of(stream)?),
                    };
                    room.wait().await?;
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
    pub(crate) async fn read_frame(&mut self) -> Result<DataFrame, ConnectionError> {
        self.here()?;
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

    /// Whether the other side is there and has sent nothing that nobody asked for, so that a
    /// sandbox that died or misbehaved while idle costs no event. No system call as long as the
    /// reactor has seen nothing.
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

    /// Whether anything was read that belongs to no frame yet.
    pub(crate) fn has_surplus(&self) -> bool {
        0 < self.filled
    }

    /// A frame that is wholly in the buffer; or makes `large` of one that will never be.
    fn buffered_frame(&mut self) -> Result<Option<DataFrame>, ConnectionError> {
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
            return Ok(Some(DataFrame { header, body }));
        }
        if self.buffer.len() < HEADER_LEN + len {
            let mut body = Vec::with_capacity(len);
            body.extend_from_slice(rest);
            self.filled = 0;
            self.large = Some(LargeBody { header, body });
        }
        Ok(None)
    }

    async fn read_large(&mut self) -> Result<DataFrame, ConnectionError> {
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
                // The next frame's first bytes, which nobody may send yet.
                self.filled = body.len() - header.body_len();
                body.truncate(header.body_len());
            }
        }
        let Some(LargeBody { header, body }) = large.take() else {
            return Err(ConnectionError::Ended);
        };
        Ok(DataFrame { header, body: body.into() })
    }
}

/// A second handle that is watched for room to write, while an event is sent that does not fit.
struct WriteReadiness(AsyncFd<StdStream>);

impl WriteReadiness {
    fn of(stream: &StdStream) -> io::Result<Self> {
        watched(stream.try_clone()?, Interest::WRITABLE).map(Self)
    }

    /// Waits until there may be room.
    async fn wait(&mut self) -> io::Result<()> {
        self.0.writable().await?.clear_ready();
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "unsound for types that change their descriptor; a standard stream keeps its own"
)]
fn watched(stream: StdStream, interest: Interest) -> io::Result<AsyncFd<StdStream>> {
    AsyncFd::with_interest(stream, interest)
}

/// Reads what is there, at least one byte and at most `room` of them.
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
                    // It was emptied: what comes next is told by the reactor.
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
