//! The JSON bodies of frames, except failures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The body of a `HELLO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloMessage {
    /// The shim's [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// The shim's process id as it sees itself: 1, except in tests.
    pub pid: u32,
}

/// Which protocol a function's process speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeAdapter {
    /// The runtime connects by itself (Python, Node).
    Direct,
    /// The function serves Go's `net/rpc`.
    Go,
    /// The HTTP runtime API of custom runtimes.
    Custom,
    /// A script for each event.
    Shell,
}

/// The body of an `INIT`: the function that the runtime is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitMessage {
    /// Which protocol the function's process speaks.
    pub adapter: RuntimeAdapter,
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
pub struct StartMessage {
    /// The runtime's program (an absolute path) and its arguments.
    pub argv: Vec<String>,
    /// The runtime's whole environment.
    pub env: BTreeMap<String, String>,
    /// The part that `INIT` repeats.
    #[serde(flatten)]
    pub init: InitMessage,
}

/// The body of an `INIT` for a runtime that was started before its function was known.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PrewarmedInit<'a> {
    /// The part that every `INIT` has.
    #[serde(flatten)]
    pub init: &'a InitMessage,
    /// The runtime's whole environment from here on.
    pub env: &'a BTreeMap<String, String>,
}

/// The body of an `EXITED`: how the runtime's process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitedMessage {
    /// Its exit status, where it exited; 127 where it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that killed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Whether the kernel killed it because memory ran out; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// Why it could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
