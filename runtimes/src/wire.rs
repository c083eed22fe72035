//! The frames between the invoker and a sandbox, as `PROTOCOL.md` has them: pure encoding, no I/O.
//!
//! Both sides use this file; nothing here allocates except the JSON bodies.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What `HELLO` says in `protocol`.
pub const PROTOCOL_VERSION: u32 = 1;
/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 16;
/// Bytes of the head of an `INVOKE`.
pub const INVOKE_HEAD_LEN: usize = 41;
/// Bytes of a request id in the head of an `INVOKE`.
pub const REQUEST_ID_LEN: usize = 36;
/// The most bytes that a body may have, in both directions (scf.md §8: 6 MB events and answers).
pub const BODY_BYTES_MAX: usize = 6_291_456;
/// Bit 0 of an answer's flags: the runtime can take no further event.
pub const FLAG_LAST: u8 = 1;

/// Where the shim finds its sandbox's folder, unless told otherwise.
pub const RUN_DIR: &str = "/run/hanshu";
/// In [`RUN_DIR`]: the shim's connection.
pub const CONTROL_SOCKET: &str = "control.sock";
/// In [`RUN_DIR`]: the events' connection.
pub const DATA_SOCKET: &str = "data.sock";
/// In [`RUN_DIR`]: the FIFO that everything in the sandbox writes its output to.
pub const OUTPUT_FIFO: &str = "out";
/// Names the data socket to a runtime that connects by itself (adapter *direct*).
pub const SOCKET_VARIABLE: &str = "HANSHU_SOCKET";
/// The environment of process 1: makes the C library give large events and answers back at once.
/// The runtime does not inherit it.
pub const SHIM_ENV: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");

/// Status codes of a [`Failure`], which are SCF's (scf.md §3.1).
pub mod status {
    /// The answer is over 6 MB.
    pub const ANSWER_TOO_LARGE: u16 = 407;
    /// User code raised.
    pub const USER_ERROR: u16 = 430;
    /// The memory limit was met.
    pub const OUT_OF_MEMORY: u16 = 434;
    /// The handler's file or function is missing.
    pub const HANDLER_NOT_FOUND: u16 = 437;
    /// The user's process ended in the middle of an event.
    pub const PROCESS_EXITED: u16 = 439;
    /// User code cannot be loaded, or broke the protocol.
    pub const CODE_ERROR: u16 = 443;
    /// The runtime was not ready in time.
    pub const INIT_TIMED_OUT: u16 = 446;
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Shim to invoker, body [`Hello`].
    Hello = 1,
    /// Invoker to shim, body [`Start`].
    Start = 2,
    /// Shim to invoker, body [`Exited`].
    Exited = 3,
    /// Invoker to shim: end everything at once.
    Kill = 4,
    /// Invoker to shim: forward SIGTERM.
    Term = 5,
    /// Invoker to runtime, body [`Init`].
    Init = 16,
    /// Runtime to invoker: user code is loaded.
    Ready = 17,
    /// Runtime to invoker, body [`Failure`]: user code could not be loaded.
    InitFailed = 18,
    /// Invoker to runtime, head [`InvokeHead`], body the event.
    Invoke = 32,
    /// Runtime to invoker, body the return value.
    Result = 33,
    /// Runtime to invoker, body [`Failure`].
    Failed = 34,
}

impl Kind {
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
pub struct Header {
    /// Bytes of body, at most [`BODY_BYTES_MAX`].
    pub body_len: u32,
    /// What the frame is.
    pub kind: Kind,
    /// [`FLAG_LAST`] or 0; unknown bits are kept.
    pub flags: u8,
    /// Bytes of head: [`INVOKE_HEAD_LEN`] for an `INVOKE`, else 0.
    pub head_len: u16,
    /// Names the event on the data connection; 0 elsewhere.
    pub event: u64,
}

impl Header {
    /// A header without flags.
    ///
    /// # Errors
    /// [`Malformed::BodyTooLong`] when `body_len` is over [`BODY_BYTES_MAX`].
    pub fn new(kind: Kind, event: u64, body_len: usize) -> Result<Self, Malformed> {
        let len = u32::try_from(body_len).unwrap_or(u32::MAX);
        if BODY_BYTES_MAX < body_len {
            return Err(Malformed::BodyTooLong(len));
        }
        Ok(Self { body_len: len, kind, flags: 0, head_len: head_len_of(kind), event })
    }

    /// The same header, saying that the runtime can take no further event.
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

    /// The header as it is sent.
    #[must_use]
    pub const fn encode(&self) -> [u8; HEADER_LEN] {
        let [b0, b1, b2, b3] = self.body_len.to_le_bytes();
        let [h0, h1] = self.head_len.to_le_bytes();
        let [e0, e1, e2, e3, e4, e5, e6, e7] = self.event.to_le_bytes();
        let (kind, flags) = (self.kind as u8, self.flags);
        [b0, b1, b2, b3, kind, flags, h0, h1, e0, e1, e2, e3, e4, e5, e6, e7]
    }

    /// Reads a header and checks kind and lengths, so that whoever holds one may allocate for it.
    ///
    /// # Errors
    /// [`Malformed`], after which nothing more can be read from the connection.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, Malformed> {
        let [b0, b1, b2, b3, kind, flags, h0, h1, e0, e1, e2, e3, e4, e5, e6, e7] = *bytes;
        let kind = Kind::from_byte(kind).ok_or(Malformed::UnknownKind(kind))?;
        let body_len = u32::from_le_bytes([b0, b1, b2, b3]);
        if usize::try_from(body_len).map_or(true, |len| BODY_BYTES_MAX < len) {
            return Err(Malformed::BodyTooLong(body_len));
        }
        let head_len = u16::from_le_bytes([h0, h1]);
        if head_len != head_len_of(kind) {
            return Err(Malformed::HeadLength { kind, found: head_len });
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
const fn head_len_of(kind: Kind) -> u16 {
    match kind {
        Kind::Invoke => 41,
        Kind::Hello
        | Kind::Start
        | Kind::Exited
        | Kind::Kill
        | Kind::Term
        | Kind::Init
        | Kind::Ready
        | Kind::InitFailed
        | Kind::Result
        | Kind::Failed => 0,
    }
}

/// Why a frame cannot be understood. The connection is of no use after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
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
        kind: Kind,
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

/// Where an event came from; the environment's `TRIGGER_SRC` follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
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
    pub origin: Origin,
    /// The request id, visible ASCII.
    pub request_id: [u8; REQUEST_ID_LEN],
}

impl InvokeHead {
    /// The head as it is sent.
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

    /// Reads a head.
    ///
    /// # Errors
    /// [`Malformed::UnknownOrigin`] or [`Malformed::RequestId`].
    pub fn decode(bytes: &[u8; INVOKE_HEAD_LEN]) -> Result<Self, Malformed> {
        let [r0, r1, r2, r3, origin, id @ ..] = *bytes;
        let origin = match origin {
            0 => Origin::Direct,
            1 => Origin::Timer,
            2 => Origin::Http,
            3 => Origin::Redis,
            other => return Err(Malformed::UnknownOrigin(other)),
        };
        if !id.iter().all(u8::is_ascii_graphic) {
            return Err(Malformed::RequestId);
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

/// The body of a `HELLO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The shim's process id as it sees itself: 1, except in tests.
    pub pid: u32,
}

/// How a function's process is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Adapter {
    /// The runtime connects by itself (Python, Node).
    Direct,
    /// Go's `net/rpc`.
    Go,
    /// The HTTP runtime API of custom runtimes.
    Custom,
    /// A script for each event.
    Shell,
}

/// The body of an `INIT`: what a runtime is told about its function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    /// How the function's process is spoken to.
    pub adapter: Adapter,
    /// The working folder, which is the function's code.
    pub cwd: String,
    /// The function's handler, as configured.
    pub handler: String,
    /// The function's name.
    pub function_name: String,
    /// The function's version.
    pub function_version: String,
    /// The function's namespace.
    pub namespace: String,
    /// The function's memory limit, MiB.
    pub memory_mb: u32,
    /// The time limit of one event, milliseconds.
    pub timeout_ms: u32,
    /// The time limit from `START` to `READY`, milliseconds.
    pub init_timeout_ms: u32,
    /// The function's own variables.
    pub user_env: BTreeMap<String, String>,
    /// Where the adapters *go* and *custom* speak TCP on 127.0.0.1.
    pub port: u16,
}

/// The body of a `START`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The runtime's program (an absolute path) and its arguments.
    pub argv: Vec<String>,
    /// The runtime's whole environment.
    pub env: BTreeMap<String, String>,
    /// What `INIT` says too.
    #[serde(flatten)]
    pub init: Init,
}

/// The body of an `INIT` for a runtime that was started before its function was known.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LateInit<'a> {
    /// What every `INIT` says.
    #[serde(flatten)]
    pub init: &'a Init,
    /// The runtime's whole environment from here on.
    pub env: &'a BTreeMap<String, String>,
}

/// The body of an `EXITED`: how the runtime's process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exited {
    /// Its exit status, where it exited; 127 where it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that killed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel killed for want of memory; absent where that cannot be known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// Why it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The body of `INIT_FAILED` and `FAILED`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One of [`status`].
    pub status_code: u16,
    /// 1: user code failed; -1: it was ended.
    pub error_code: i32,
    /// What went wrong, for the function's author.
    pub error_message: String,
    /// The error's type in its own language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// Where it went wrong, for the function's author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_trace: Option<String>,
}

impl Failure {
    /// A failure of user code, with a message and no more.
    #[must_use]
    pub fn new(status_code: u16, message: impl Into<String>) -> Self {
        Self {
            status_code,
            error_code: 1,
            error_message: message.into(),
            error_type: None,
            stack_trace: None,
        }
    }
}

#[cfg(test)]
mod tests;
