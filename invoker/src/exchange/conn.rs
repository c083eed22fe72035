//! A sandbox's data connection: one buffer, and one reactor at a time.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;

use hanshu_runtimes::wire::{HEADER_LEN, Header, Malformed};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::{Handle, Id};

/// Holds a usual answer whole; larger bodies are read straight into their own memory.
const BUFFER_BYTES: usize = 16 * 1024;

/// The connection over which events go. Whoever holds it, holds the sandbox.
#[derive(Debug)]
pub(crate) struct DataConn {
    stream: Option<UnixStream>,
    /// The runtime whose reactor watches the stream.
    reactor: Option<Id>,
    /// `buffer[..filled]` was read and not yet used.
    buffer: Box<[u8]>,
    filled: usize,
    /// A body that does not fit into the buffer, while it is being read.
    large: Option<Large>,
}

#[derive(Debug)]
struct Large {
    header: Header,
    body: Vec<u8>,
}

/// A frame that was read.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    pub(crate) body: bytes::Bytes,
}

/// Why the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnError {
    /// The other side is gone, at a frame's border or not.
    #[error("the runtime's connection ended")]
    Ended,
    /// The system failed.
    #[error("the runtime's connection failed: {0}")]
    Io(#[source] io::Error),
    /// The other side broke the protocol.
    #[error("the runtime broke the protocol: {0}")]
    Malformed(#[from] Malformed),
}

impl From<io::Error> for ConnError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::NotConnected => {
                Self::Ended
            }
            _ => Self::Io(error),
        }
    }
}

impl DataConn {
    /// A connection that was accepted on the current runtime.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream: Some(stream),
            reactor: Handle::try_current().ok().map(|handle| handle.id()),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            filled: 0,
            large: None,
        }
    }

    /// Moves the connection to the reactor of the runtime that the caller runs on, so that an
    /// answer wakes the caller without a hop between threads. Two system calls when it changes.
    fn here(&mut self) -> io::Result<&mut UnixStream> {
        let here = Handle::try_current().map_err(io::Error::other)?.id();
        if self.reactor != Some(here)
            && let Some(stream) = self.stream.take()
        {
            let std: StdStream = stream.into_std()?;
            self.stream = Some(UnixStream::from_std(std)?);
            self.reactor = Some(here);
        }
        self.stream.as_mut().ok_or_else(|| io::Error::from(ErrorKind::NotConnected))
    }

    /// Writes what is left of three parts after `sent` bytes, and counts along. May be dropped and
    /// called again.
    pub(crate) async fn write_parts(
        &mut self,
        parts: [&[u8]; 3],
        sent: &mut usize,
    ) -> Result<(), ConnError> {
        let stream = self.here()?;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while *sent < total {
            let mut skip = *sent;
            let slices = parts.map(|part| {
                let rest = part.get(skip.min(part.len())..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                IoSlice::new(rest)
            });
            match stream.write_vectored(&slices).await? {
                0 => return Err(ConnError::Ended),
                written => *sent += written,
            }
        }
        Ok(())
    }

    /// Reads one frame without a head. May be dropped and called again.
    pub(crate) async fn read_frame(&mut self) -> Result<Frame, ConnError> {
        self.here()?;
        while self.large.is_none() {
            if let Some(frame) = self.buffered_frame()? {
                return Ok(frame);
            }
            if self.large.is_none() {
                let Self { stream: Some(stream), buffer, filled, .. } = self else {
                    return Err(ConnError::Ended);
                };
                let room = buffer.get_mut(*filled..).unwrap_or_default();
                match stream.read(room).await? {
                    0 => return Err(ConnError::Ended),
                    read => *filled += read,
                }
            }
        }
        self.read_large().await
    }

    /// Whether the other side is there and has sent nothing that nobody asked for: one system
    /// call, so that a sandbox that died or misbehaved while idle costs no event.
    pub(crate) fn is_fresh(&self) -> bool {
        let Some(stream) = &self.stream else { return false };
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let peeked = nix::sys::socket::recv(stream.as_raw_fd(), &mut [0], flags);
        self.filled == 0 && peeked == Err(Errno::EAGAIN)
    }

    /// Whether anything was read that belongs to no frame yet.
    pub(crate) fn has_surplus(&self) -> bool {
        0 < self.filled
    }

    /// A frame that is wholly in the buffer; or makes `large` of one that will never be.
    fn buffered_frame(&mut self) -> Result<Option<Frame>, ConnError> {
        let filled = self.buffer.get(..self.filled).unwrap_or_default();
        let Some((header, rest)) = filled.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::decode(header)?;
        if usize::from(header.head_len) != 0 {
            return Err(Malformed::HeadLength { kind: header.kind, found: header.head_len }.into());
        }
        let len = header.body_len();
        if let Some(body) = rest.get(..len) {
            let body = bytes::Bytes::copy_from_slice(body);
            self.buffer.copy_within(HEADER_LEN + len..self.filled, 0);
            self.filled -= HEADER_LEN + len;
            return Ok(Some(Frame { header, body }));
        }
        if self.buffer.len() < HEADER_LEN + len {
            let mut body = Vec::with_capacity(len);
            body.extend_from_slice(rest);
            self.filled = 0;
            self.large = Some(Large { header, body });
        }
        Ok(None)
    }

    async fn read_large(&mut self) -> Result<Frame, ConnError> {
        let Self { stream: Some(stream), large, .. } = self else {
            return Err(ConnError::Ended);
        };
        loop {
            let Some(Large { header, body }) = large else { return Err(ConnError::Ended) };
            let left = header.body_len().saturating_sub(body.len());
            if left == 0 {
                break;
            }
            // The capacity is exact, so `take` keeps the next frame's bytes out of it.
            let mut limited = (&mut *stream).take(left as u64);
            if limited.read_buf(body).await? == 0 {
                return Err(ConnError::Ended);
            }
        }
        let Some(Large { header, body }) = large.take() else { return Err(ConnError::Ended) };
        Ok(Frame { header, body: body.into() })
    }
}
