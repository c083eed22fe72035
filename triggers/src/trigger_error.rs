//! Why a trigger's settings are refused.

use hanshu_core::ErrorKind;

use crate::schedule::CronError;

/// A trigger's settings break a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TriggerError {
    /// The schedule of a timer is invalid.
    #[error("{0}")]
    Cron(#[from] CronError),
    /// Another field is invalid.
    #[error("`{field}` is `{value}`: expected {rule}")]
    Field {
        /// As in `hanshu.toml`.
        field: &'static str,
        /// Its beginning; never a password.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
}

impl TriggerError {
    /// The kind that decides the status.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    pub(crate) fn field(field: &'static str, value: &str, rule: &'static str) -> Self {
        Self::Field { field, value: value.chars().take(80).collect(), rule }
    }
}
