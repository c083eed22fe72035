//! Triggers as they were configured. A kind of trigger is a row: its file has its settings and its
//! [`TriggerProfile`], and the table here names it.

mod field;
mod http;
mod kind;
mod redis;
#[cfg(test)]
mod tests;
mod timer;

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::function::FunctionId;
use crate::name::{NameError, TriggerName};

pub use field::{FieldValue, TriggerField, TriggerFieldError};
pub use http::{HttpAuth, HttpTrigger};
pub use kind::{TriggerConfig, TriggerKind, TriggerProfile, TriggerSpec, decode_config};
pub use redis::RedisTrigger;
pub use timer::TimerTrigger;

/// The table of kinds.
static KINDS: [TriggerKind; 3] = [TimerTrigger::KIND, HttpTrigger::KIND, RedisTrigger::KIND];

/// `timer, http or redis`.
static NAMES: LazyLock<String> = LazyLock::new(|| {
    let names = KINDS.map(TriggerKind::as_str);
    match names.split_last() {
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
});

/// A trigger's identity: survives every deploy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TriggerId {
    /// The function that it starts.
    pub function: FunctionId,
    /// Its name within the function.
    pub name: TriggerName,
}

/// What starts a function, with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The function and the trigger's name.
    pub id: TriggerId,
    /// What it does.
    pub spec: TriggerSpec,
    /// Whether it is switched on. A deploy sets it, `hanshu trigger enable|disable` too.
    pub enabled: bool,
}

impl TriggerKind {
    /// All kinds, in the order of the table.
    pub fn all() -> impl ExactSizeIterator<Item = Self> + Clone {
        KINDS.iter().copied()
    }

    /// The name of a trigger that was given none: that of its kind.
    ///
    /// # Errors
    /// The kind's name is no valid name of a trigger; a test excludes that for all kinds.
    pub fn default_name(self) -> Result<TriggerName, NameError> {
        self.as_str().parse()
    }
}

impl FromStr for TriggerKind {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let named = Self::all().find(|kind| kind.as_str() == text);
        named.ok_or_else(|| NameError::new("type", text, &NAMES))
    }
}

impl Serialize for TriggerKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TriggerKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for TriggerId {
    /// Writes the form `namespace/function/trigger`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.function, self.name)
    }
}
