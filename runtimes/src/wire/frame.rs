//! The header of a frame: its kind, flags and lengths, and what is refused.

use super::{BODY_BYTES_MAX, FLAG_LAST, HEADER_LEN};

/// The kind of a frame, which determines its sender, head and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Shim to invoker, body [`HelloMessage`].
    Hello = 1,
    /// Invoker to shim, body [`StartMessage`].
    Start = 2,
    /// Shim to invoker, body [`ExitedMessage`].
    Exited = 3,
    /// Invoker to shim: kill every process at once.
    Kill = 4,
    /// Invoker to shim: forward SIGTERM.
    Term = 5,
    /// Invoker to runtime, body [`InitMessage`].
    Init = 16,
    /// Runtime to invoker: user code is loaded.
    Ready = 17,
    /// Runtime to invoker, body [`RuntimeFailure`]: user code could not be loaded.
    InitFailed = 18,
    /// Invoker to runtime, head [`InvokeHead`], body the event.
    Invoke = 32,
    /// Runtime to invoker, body the return value.
    Result = 33,
    /// Runtime to invoker, body [`RuntimeFailure`].
    Failed = 34,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Start,
            3 => Self::Exited,
            4 => Self::Kill,
            5 => Self::Term,
            16 => Self::Init,
            17 => Self::Ready,
            18 => Self::InitFailed,
            32 => Self::Invoke,
            33 => Self::Result,
            34 => Self::Failed,
            _ => return None,
        })
    }
}

/// The first 16 bytes of a frame; `head_len` bytes of head and `body_len` bytes of body follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of body, at most [`BODY_BYTES_MAX`].
    pub body_len: u32,
    /// The frame's kind.
    pub kind: FrameKind,
    /// [`FLAG_LAST`] or 0; unknown bits are kept.
    pub flags: u8,
    /// Bytes of head: [`INVOKE_HEAD_LEN`] for an `INVOKE`, else 0.
    pub head_len: u16,
    /// The event's number on the data connection; 0 elsewhere.
    pub event: u64,
}

impl FrameHeader {
    /// A header without flags.
    ///
    /// # Errors
    /// [`Malformed::BodyTooLong`] when `body_len` is over [`BODY_BYTES_MAX`].
    pub fn new(kind: FrameKind, event: u64, body_len: usize) -> Result<Self, FrameError> {
        let len = u32::try_from(body_len).unwrap_or(u32::MAX);
        if BODY_BYTES_MAX < body_len {
            return Err(FrameError::BodyTooLong(len));
        }
        Ok(Self { body_len: len, kind, flags: 0, head_len: head_len_of(kind), event })
    }

    /// The same header with [`FLAG_LAST`].
    #[must_use]
    pub const fn last(mut self) -> Self {
        self.flags |= FLAG_LAST;
        self
    }

    /// Whether the runtime can take no further event.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.flags & FLAG_LAST != 0
    }

    /// The encoded header.
    #[must_use]
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let [b0, b1, b2, b3] = self.body_len.to_le_bytes();
        let [h0, h1] = self.head_len.to_le_bytes();
        let [e0, e1, e2, e3, e4, e5, e6, e7] = self.event.to_le_bytes();
        let (kind, flags) = (self.kind as u8, self.flags);
        [b0, b1, b2, b3, kind, flags, h0, h1, e0, e1, e2, e3, e4, e5, e6, e7]
    }

    /// Decodes a header and checks kind and lengths, so that the caller may allocate for the body.
    ///
    /// # Errors
    /// [`FrameError`], after which nothing more can be read from the connection.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [b0, b1, b2, b3, kind, flags, h0, h1, e0, e1, e2, e3, e4, e5, e6, e7] = *bytes;
        let kind = FrameKind::from_byte(kind).ok_or(FrameError::UnknownKind(kind))?;
        let body_len = u32::from_le_bytes([b0, b1, b2, b3]);
        if usize::try_from(body_len).map_or(true, |len| BODY_BYTES_MAX < len) {
            return Err(FrameError::BodyTooLong(body_len));
        }
        let head_len = u16::from_le_bytes([h0, h1]);
        if head_len != head_len_of(kind) {
            return Err(FrameError::HeadLength { kind, found: head_len });
        }
        let event = u64::from_le_bytes([e0, e1, e2, e3, e4, e5, e6, e7]);
        Ok(Self { body_len, kind, flags, head_len, event })
    }

    /// The length of the body, for allocating and slicing.
    #[must_use]
    pub const fn body_len(&self) -> usize {
        self.body_len as usize
    }
}

/// What every frame of a kind has for a head.
const fn head_len_of(kind: FrameKind) -> u16 {
    match kind {
        FrameKind::Invoke => 41,
        FrameKind::Hello
        | FrameKind::Start
        | FrameKind::Exited
        | FrameKind::Kill
        | FrameKind::Term
        | FrameKind::Init
        | FrameKind::Ready
        | FrameKind::InitFailed
        | FrameKind::Result
        | FrameKind::Failed => 0,
    }
}

/// Why a frame is invalid. The connection cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A kind that this protocol version does not have.
    #[error("a frame has the unknown kind `{0}`")]
    UnknownKind(u8),
    /// A body over the limit.
    #[error("a frame's body has `{0}` bytes, more than {BODY_BYTES_MAX}")]
    BodyTooLong(u32),
    /// A head of another length than the kind has.
    #[error("a frame of kind {kind:?} has a head of `{found}` bytes")]
    HeadLength {
        /// The frame's kind.
        kind: FrameKind,
        /// The length that the header gives.
        found: u16,
    },
    /// An origin that this protocol version does not have.
    #[error("an event has the unknown origin `{0}`")]
    UnknownOrigin(u8),
    /// A request id with other than visible ASCII characters.
    #[error("a request id is not of visible ASCII characters")]
    RequestId,
}
