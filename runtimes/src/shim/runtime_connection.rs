//! The data connection, for adapters: events in, answers out.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::frames::{self, invalid};
use super::invocation_response::InvocationResponse;
use crate::wire::{DATA_SOCKET, FrameHeader, FrameKind, InitMessage, InvokeHead, RuntimeFailure};

/// Small events come in one read.
const READ_AHEAD: usize = 16 * 1024;

/// One event.
#[derive(Debug)]
pub(super) struct ReceivedEvent {
    /// Names the event; goes into its answer and nowhere else.
    pub(super) name: u64,
    pub(super) head: InvokeHead,
    /// JSON.
    pub(super) payload: Vec<u8>,
}

/// What becomes of the sandbox after an answer.
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
    /// Connects, and reads what the invoker says first.
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

    /// Says that events can come.
    pub(super) fn ready(&mut self) -> io::Result<()> {
        self.send(FrameHeader::new(FrameKind::Ready, 0, 0).map_err(invalid)?, &[])
    }

    /// Says that none can, and waits for the end of the connection.
    pub(super) fn refuse(mut self, failure: &RuntimeFailure) -> io::Result<()> {
        frames::write_json(self.stream.get_mut(), FrameKind::InitFailed, failure)?;
        self.wait_for_end()
    }

    /// Waits for the end of the connection, when there is nothing more to say on it.
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

    /// Answers the event of that name.
    pub(super) fn answer(
        &mut self,
        name: u64,
        answer: &InvocationResponse,
        then: AfterResponse,
    ) -> io::Result<()> {
        let json;
        let (kind, body) = match answer {
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
