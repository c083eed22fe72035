//! The head of an `INVOKE` frame: deadline, origin and request id of one event.

use super::{FrameError, INVOKE_HEAD_LEN, REQUEST_ID_LEN};

/// Where an event came from. The number is in the frame, the name is the environment's
/// `TRIGGER_SRC`; the bootstraps have the same table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventOrigin(u8);

impl EventOrigin {
    /// The names, by number.
    pub const NAMES: [&str; 4] = ["direct", "timer", "http", "redis"];
    /// A call over the API.
    pub const DIRECT: Self = Self(0);

    /// The origin with a number; `None` if there is none.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        (usize::from(number) < Self::NAMES.len()).then_some(Self(number))
    }

    /// The value of `TRIGGER_SRC`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

/// What precedes the event in an `INVOKE` frame: deadline, origin and request id.
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
            *origin = self.origin.0;
            request_id.copy_from_slice(&self.request_id);
        }
        bytes
    }

    /// Decodes a head.
    ///
    /// # Errors
    /// [`FrameError::UnknownOrigin`] or [`FrameError::RequestId`].
    pub fn decode(bytes: &[u8; INVOKE_HEAD_LEN]) -> Result<Self, FrameError> {
        let [r0, r1, r2, r3, origin, id @ ..] = *bytes;
        let origin = EventOrigin::from_number(origin).ok_or(FrameError::UnknownOrigin(origin))?;
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
