//! One event in, one answer out, over a sandbox's data connection.
//!
//! A request on a connection of its own, read and written by a task, would be simpler. A warm call
//! here takes 57 % more time than the bare exchange with the same worker (`sync_python_1` in
//! docs/promises.md), and a task of its own would add two hops between threads to it. So the caller's
//! own task drives the exchange, and its progress is kept here: the call may be dropped at any point
//! and driven to its end by another task.

use bytes::Bytes;
use hanshu_core::{Origin, RequestId};
use hanshu_runtimes::wire::{
    self, EventOrigin, FrameError, FrameHeader, FrameKind, HEADER_LEN, INVOKE_HEAD_LEN, InvokeHead,
};

use super::connection::{ConnectionError, DataConnection, ReceivedFrame};

/// An event on its way, and how much of it was sent.
#[derive(Debug)]
pub(crate) struct EventExchange {
    /// Names the event on the connection.
    pub(super) event: u64,
    header: [u8; HEADER_LEN],
    head: [u8; INVOKE_HEAD_LEN],
    payload: Bytes,
    sent: usize,
}

/// What the runtime answered.
#[derive(Debug, PartialEq)]
pub(crate) struct RuntimeAnswer {
    pub(crate) result: Result<Bytes, wire::RuntimeFailure>,
    /// The runtime can take no further event.
    pub(crate) last: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The runtime answered another event.
    #[error("the runtime answered an event that it was not given")]
    Foreign,
    /// The runtime sent a frame that is no answer.
    #[error("the runtime sent {0:?} instead of an answer")]
    NotAnAnswer(FrameKind),
    /// The runtime answered more than once.
    #[error("the runtime sent more than its answer")]
    Surplus,
    /// The runtime reported a failure that cannot be read.
    #[error("the runtime's failure cannot be read: {0}")]
    Failure(#[source] serde_json::Error),
}

impl EventExchange {
    /// An event that is about to be sent.
    ///
    /// # Errors
    /// The payload is over the limit.
    pub(crate) fn new(
        request_id: RequestId,
        origin: &Origin,
        remaining_ms: u32,
        payload: Bytes,
    ) -> Result<Self, FrameError> {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        // The few fixed bits of each half are combined with random bits of the other.
        let event = high ^ low.rotate_left(32);
        let header = FrameHeader::new(FrameKind::Invoke, event, payload.len())?.encode();
        let mut id = [0; 36];
        request_id.encode(&mut id);
        let origin = EventOrigin::from_number(origin.number())
            .ok_or(FrameError::UnknownOrigin(origin.number()))?;
        let head = InvokeHead { remaining_ms, origin, request_id: id }.encode();
        Ok(Self { event, header, head, payload, sent: 0 })
    }

    /// Sends the event and reads the answer. The deadline is the caller's.
    ///
    /// # Errors
    /// [`ExchangeError`], after which the sandbox must not be used again.
    pub(crate) async fn drive(
        &mut self,
        conn: &mut DataConnection,
    ) -> Result<RuntimeAnswer, ExchangeError> {
        if self.sent == 0 && conn.has_surplus() {
            return Err(ExchangeError::Surplus);
        }
        conn.write_parts([&self.header, &self.head, &self.payload], &mut self.sent).await?;
        let ReceivedFrame { header, body } = conn.read_frame().await?;
        if header.event != self.event {
            return Err(ExchangeError::Foreign);
        }
        if conn.has_surplus() {
            return Err(ExchangeError::Surplus);
        }
        let result = match header.kind {
            FrameKind::Result => Ok(body),
            FrameKind::Failed => {
                Err(serde_json::from_slice(&body).map_err(ExchangeError::Failure)?)
            }
            other => return Err(ExchangeError::NotAnAnswer(other)),
        };
        Ok(RuntimeAnswer { result, last: header.is_last() })
    }
}
