//! The data connection, for adapters: events in, answers out.

use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::answer::Answer;
use super::frames::{self, invalid};
use crate::wire::{DATA_SOCKET, Failure, Header, Init, InvokeHead, Kind};

/// Small events come in one read.
const READ_AHEAD: usize = 16 * 1024;

/// One event.
#[derive(Debug)]
pub(super) struct Event {
    /// Names the event; goes into its answer and nowhere else.
    pub(super) name: u64,
    pub(super) head: InvokeHead,
    /// JSON.
    pub(super) payload: Vec<u8>,
}

/// What becomes of the sandbox after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The runtime takes the next event.
    Continue,
    /// The runtime can take no further event.
    Last,
}

/// The adapter's end of the data connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: BufReader<UnixStream>,
}

impl Link {
    /// Connects, and reads what the invoker says first.
    pub(super) fn connect(dir: &Path) -> io::Result<(Self, Init)> {
        let stream = UnixStream::connect(dir.join(DATA_SOCKET))?;
        let mut link = Self { stream: BufReader::with_capacity(READ_AHEAD, stream) };
        let frame = frames::read(&mut link.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if frame.header.kind != Kind::Init {
            return Err(unexpected(frame.header.kind));
        }
        let init = frame.json()?;
        Ok((link, init))
    }

    /// Says that events can come.
    pub(super) fn ready(&mut self) -> io::Result<()> {
        self.send(Header::new(Kind::Ready, 0, 0).map_err(invalid)?, &[])
    }

    /// Says that none can, and waits for the end of the connection.
    pub(super) fn refuse(mut self, failure: &Failure) -> io::Result<()> {
        frames::write_json(self.stream.get_mut(), Kind::InitFailed, failure)?;
        self.wait_for_end()
    }

    /// Waits for the end of the connection, when there is nothing more to say on it.
    pub(super) fn wait_for_end(mut self) -> io::Result<()> {
        while frames::read(&mut self.stream)?.is_some() {}
        Ok(())
    }

    /// The next event, for which there is no deadline; `None` when the invoker is gone.
    pub(super) fn next(&mut self) -> io::Result<Option<Event>> {
        let Some(frame) = frames::read(&mut self.stream)? else { return Ok(None) };
        match frame.head {
            Some(head) => Ok(Some(Event { name: frame.header.event, head, payload: frame.body })),
            None => Err(unexpected(frame.header.kind)),
        }
    }

    /// Answers the event of that name.
    pub(super) fn answer(&mut self, name: u64, answer: &Answer, then: Then) -> io::Result<()> {
        let json;
        let (kind, body) = match answer {
            Answer::Returned(body) => (Kind::Result, body),
            Answer::Failed(failure) => {
                json = serde_json::to_vec(failure).map_err(invalid)?;
                (Kind::Failed, &json)
            }
        };
        let header = Header::new(kind, name, body.len()).map_err(invalid)?;
        let header = match then {
            Then::Continue => header,
            Then::Last => header.last(),
        };
        self.send(header, body)
    }

    fn send(&mut self, header: Header, body: &[u8]) -> io::Result<()> {
        frames::write(self.stream.get_mut(), &header, body)
    }
}

fn unexpected(kind: Kind) -> io::Error {
    invalid(format!("the invoker sent a frame of kind {kind:?} on the data connection"))
}
