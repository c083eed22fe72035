//! Triggers, as they were configured.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::function::FunctionId;
use crate::name::{NameError, TriggerName};
use crate::secret::Secret;

/// A trigger's identity: survives every deploy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TriggerId {
    /// The function it starts.
    pub function: FunctionId,
    /// Its name there.
    pub name: TriggerName,
}

/// What starts a function, with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Whose, and what it is called.
    pub id: TriggerId,
    /// What it does.
    pub spec: TriggerSpec,
    /// Switched on? A deploy sets it, `hanshu trigger enable|disable` too.
    pub enabled: bool,
}

/// What a trigger does. Serialised in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum TriggerSpec {
    /// Queues an event at each tick.
    Timer {
        /// Cron text of 5, 6 or 7 fields, as the user wrote it.
        cron: String,
        /// IANA zone; `None` is the server's `--timezone`.
        timezone: Option<String>,
        /// `event.Message`.
        argument: String,
    },
    /// Turns HTTP requests into synchronous calls.
    Http {
        /// Such as `/hello/{name}`.
        path: String,
        /// Upper case; empty means any.
        methods: Vec<String>,
        /// Who may call.
        auth: HttpAuth,
        /// The key where `auth` asks for one; made by the platform, survives deploys.
        key: Option<Secret>,
    },
    /// Feeds batches of a user's Redis stream to the function.
    Redis {
        /// `redis://…`; may hold a password.
        url: Secret,
        /// The stream's key.
        stream: String,
        /// Entries per event, at most.
        batch: u32,
    },
}

/// Who may call an HTTP trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpAuth {
    /// Anybody.
    None,
    /// Whoever sends the trigger's own key in `x-hanshu-key`.
    #[default]
    Key,
}

/// A trigger's kind, without its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TriggerKind {
    /// A schedule.
    Timer,
    /// A route.
    Http,
    /// A stream.
    Redis,
}

impl TriggerSpec {
    /// Its kind.
    pub fn kind(&self) -> TriggerKind {
        match self {
            Self::Timer { .. } => TriggerKind::Timer,
            Self::Http { .. } => TriggerKind::Http,
            Self::Redis { .. } => TriggerKind::Redis,
        }
    }
}

impl TriggerKind {
    /// `timer`, `http` or `redis`: also a trigger's name where it has none of its own.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::Http => "http",
            Self::Redis => "redis",
        }
    }

    /// The name of a trigger that was given none.
    ///
    /// # Errors
    /// Never in fact: the three texts are valid names.
    pub fn default_name(self) -> Result<TriggerName, NameError> {
        self.as_str().parse()
    }
}

impl fmt::Display for TriggerId {
    /// `namespace/function/trigger`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.function, self.name)
    }
}
