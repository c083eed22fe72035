//! Functions, as they were deployed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::limits;
use crate::name::{FunctionName, Namespace, Qualifier};
use crate::runtime::Runtime;

/// A function's identity: survives every deploy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FunctionId {
    /// The namespace, in which the name is unique.
    pub namespace: Namespace,
    /// The function's name within the namespace.
    pub name: FunctionName,
}

/// How a function is to run. What `hanshu.toml` says, checked. Serialised in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionConfig {
    /// The language, as the user named it.
    pub runtime: Runtime,
    /// What to call: `index.main_handler`, the binary's name for Go, the script for shell.
    pub handler: String,
    /// MiB, at least [`limits::MEMORY_MIN_MB`].
    pub memory_mb: u32,
    /// How long one event may take.
    pub timeout: Duration,
    /// How long the runtime may take until user code is loaded.
    pub init_timeout: Duration,
    /// At most so many invocations at once in the whole cluster; `None` as the nodes allow.
    pub concurrency: Option<u32>,
    /// Whether the function may use the network; `None` as the backend can.
    pub network: Option<bool>,
    /// What happens to queued events.
    pub async_policy: AsyncPolicy,
    /// The function's own variables.
    pub env: BTreeMap<String, String>,
}

/// What happens to a function's queued events (SCF §4: two retries a minute apart, six hours).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsyncPolicy {
    /// Attempts that end in the function's fault, the first included; at least 1.
    pub max_attempts: u32,
    /// Time from the end of a failed attempt to the next one.
    pub retry_delay: Duration,
    /// Age, counted from its acceptance, at which an event expires.
    pub max_age: Duration,
    /// Events that may wait in one queue; the next one is refused.
    pub max_waiting: u32,
}

/// One immutable pair of configuration and code. `$LATEST` points to one and a published version
/// is one; queued events name the one they were accepted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The function that this is a revision of.
    pub function: FunctionId,
    /// Under which name it is called: `$LATEST` or a number. Shown to the function.
    pub version: Qualifier,
    /// Of configuration and code together: names the revision.
    pub digest: Digest,
    /// SHA-256 of the code package.
    pub code: Digest,
    /// The configuration that it runs with.
    pub config: FunctionConfig,
}

impl Default for AsyncPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            retry_delay: Duration::from_secs(60),
            max_age: limits::ASYNC_AGE_MAX,
            max_waiting: limits::ASYNC_WAITING_MAX,
        }
    }
}

impl fmt::Display for FunctionId {
    /// Writes the form `namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
