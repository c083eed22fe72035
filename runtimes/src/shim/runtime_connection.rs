//! The data connection of an adapter: receives events, sends responses.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::frames::{self, invalid};
use super::invocation_response::InvocationResponse;
use crate::wire::{DATA_SOCKET, FrameHeader, FrameKind, InitMessage, InvokeHead, RuntimeFailure};

/// Bytes of read buffer: a small event is received in one read.
const READ_AHEAD: usize = 16 * 1024;

/// One event as it was received.
#[derive(Debug)]
pub(super) struct ReceivedEvent {
    /// The event's number on this connection, which its response repeats.
    pub(super) name: u64,
    pub(super) head: InvokeHead,
    /// The event, JSON.
    pub(super) payload: Vec<u8>,
}

/// Whether the runtime takes events after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterResponse {
    /// The runtime takes the next event.
    Continue,
    /// The runtime can take no further event.
    Last,
}

/// The adapter's end of the data connection.
#[derive(Debug)]
pub(super) struct RuntimeConnection {
    stream: BufReader<UnixStream>,
}

impl RuntimeConnection {
    /// Connects and reads `INIT`.
    pub(super) fn connect(dir: &Path) -> io::Result<(Self, InitMessage)> {
        let stream = UnixStream::connect(dir.join(DATA_SOCKET))?;
        let mut connection = Self { stream: BufReader::with_capacity(READ_AHEAD, stream) };
        let frame = frames::read(&mut connection.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if frame.header.kind != FrameKind::Init {
            return Err(unexpected(frame.header.kind));
        }
        let init = frame.json()?;
        Ok((connection, init))
    }

    /// Tells the invoker that the runtime is ready (`READY`).
    pub(super) fn ready(&mut self) -> io::Result<()> {
        self.send(FrameHeader::new(FrameKind::Ready, 0, 0).map_err(invalid)?, &[])
    }

    /// Sends `INIT_FAILED` and waits for the end of the connection.
    pub(super) fn refuse(mut self, failure: &RuntimeFailure) -> io::Result<()> {
        frames::write_json(self.stream.get_mut(), FrameKind::InitFailed, failure)?;
        self.wait_for_end()
    }

    /// Waits for the end of the connection without sending anything more.
    pub(super) fn wait_for_end(mut self) -> io::Result<()> {
        while frames::read(&mut self.stream)?.is_some() {}
        Ok(())
    }

    /// The next event, for which there is no deadline; `None` when the invoker is gone.
    pub(super) fn next(&mut self) -> io::Result<Option<ReceivedEvent>> {
        let Some(frame) = frames::read(&mut self.stream)? else { return Ok(None) };
        match frame.head {
            Some(head) => {
                Ok(Some(ReceivedEvent { name: frame.header.event, head, payload: frame.body }))
            }
            None => Err(unexpected(frame.header.kind)),
        }
    }

    /// Sends the response to the event of that number.
    pub(super) fn respond(
        &mut self,
        name: u64,
        response: &InvocationResponse,
        then: AfterResponse,
    ) -> io::Result<()> {
        let json;
        let (kind, body) = match response {
            InvocationResponse::Returned(body) => (FrameKind::Result, body),
            InvocationResponse::Failed(failure) => {
                json = serde_json::to_vec(failure).map_err(invalid)?;
                (FrameKind::Failed, &json)
            }
        };
        let header = FrameHeader::new(kind, name, body.len()).map_err(invalid)?;
        let header = match then {
            AfterResponse::Continue => header,
            AfterResponse::Last => header.last(),
        };
        self.send(header, body)
    }

    fn send(&mut self, header: FrameHeader, body: &[u8]) -> io::Result<()> {
        frames::write(self.stream.get_mut(), &header, body)
    }
}

fn unexpected(kind: FrameKind) -> io::Error {
    invalid(format!("the invoker sent a frame of kind {kind:?} on the data connection"))
}
