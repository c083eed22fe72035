//! The head of an `INVOKE` frame: deadline, origin and request id of one event.

use super::{FrameError, INVOKE_HEAD_LEN, REQUEST_ID_LEN};

/// Where an event came from; the environment's `TRIGGER_SRC` follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventOrigin {
    /// A call over the API.
    Direct = 0,
    /// A timer.
    Timer = 1,
    /// An HTTP trigger.
    Http = 2,
    /// A Redis stream.
    Redis = 3,
}

/// The head of an `INVOKE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvokeHead {
    /// Milliseconds until the event's deadline, as of sending.
    pub remaining_ms: u32,
    /// Where the event came from.
    pub origin: EventOrigin,
    /// The request id, visible ASCII.
    pub request_id: [u8; REQUEST_ID_LEN],
}

impl InvokeHead {
    /// The encoded head.
    #[must_use]
    pub fn encode(&self) -> [u8; INVOKE_HEAD_LEN] {
        let mut bytes = [0; INVOKE_HEAD_LEN];
        let (remaining, rest) = bytes.split_at_mut(4);
        remaining.copy_from_slice(&self.remaining_ms.to_le_bytes());
        if let Some((origin, request_id)) = rest.split_first_mut() {
            *origin = self.origin as u8;
            request_id.copy_from_slice(&self.request_id);
        }
        bytes
    }

    /// Decodes a head.
    ///
    /// # Errors
    /// [`Malformed::UnknownOrigin`] or [`Malformed::RequestId`].
    pub fn decode(bytes: &[u8; INVOKE_HEAD_LEN]) -> Result<Self, FrameError> {
        let [r0, r1, r2, r3, origin, id @ ..] = *bytes;
        let origin = match origin {
            0 => EventOrigin::Direct,
            1 => EventOrigin::Timer,
            2 => EventOrigin::Http,
            3 => EventOrigin::Redis,
            other => return Err(FrameError::UnknownOrigin(other)),
        };
        if !id.iter().all(u8::is_ascii_graphic) {
            return Err(FrameError::RequestId);
        }
        let remaining_ms = u32::from_le_bytes([r0, r1, r2, r3]);
        Ok(Self { remaining_ms, origin, request_id: id })
    }

    /// The request id as text.
    #[must_use]
    pub fn request_id(&self) -> &str {
        std::str::from_utf8(&self.request_id).unwrap_or_default()
    }
}
