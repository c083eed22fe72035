//! The fields of a trigger's settings: what `hanshu.toml` and the API may contain for a kind.

use serde_json::{Map, Value};

/// One field of a kind's settings, as users write it. Fields that the platform itself sets are
/// not listed.
#[derive(Debug)]
pub struct TriggerField {
    /// The same in `hanshu.toml` and in the API.
    pub name: &'static str,
    /// Which values it takes.
    pub value: FieldValue,
    /// Whether a trigger must have it.
    pub required: bool,
    /// For the description of the API.
    pub description: &'static str,
}

/// Which values a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// A string of any content.
    Text,
    /// A string that may contain a password: shown without it, and `${VARIABLE}` is replaced.
    Address,
    /// A list of strings.
    TextList,
    /// A whole number from 0 to 4294967295.
    Number,
    /// One of these strings.
    Choice(&'static [&'static str]),
}

/// Settings that do not have the fields of their kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerFieldError {
    /// The kind has no such field.
    #[error("a trigger of type `{kind}` has no `{field}`: it has {}", names(known))]
    Unknown {
        /// The name of the trigger's kind.
        kind: &'static str,
        /// The name in the settings.
        field: String,
        /// The fields that the kind has.
        known: Vec<&'static str>,
    },
    /// A required field is missing.
    #[error("a trigger of type `{kind}` needs `{field}`")]
    Missing {
        /// The name of the trigger's kind.
        kind: &'static str,
        /// The name of the field.
        field: &'static str,
    },
    /// A field has a value that it does not take.
    #[error("`{field}`: expected {expected}")]
    Value {
        /// The name of the field.
        field: &'static str,
        /// The values that it takes.
        expected: String,
    },
    /// The settings cannot be decoded.
    #[error("{0}")]
    Decode(String),
}

impl FieldValue {
    /// Whether the value is one that the field takes.
    pub fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text | Self::Address => value.is_string(),
            Self::TextList => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
            Self::Number => value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()),
            Self::Choice(choices) => value.as_str().is_some_and(|text| choices.contains(&text)),
        }
    }

    /// The values that the field takes, for messages.
    pub fn expected(self) -> String {
        match self {
            Self::Text | Self::Address => "a string".into(),
            Self::TextList => "a list of strings".into(),
            Self::Number => "a whole number from 0 to 4294967295".into(),
            Self::Choice(choices) => format!("`{}`", choices.join("` or `")),
        }
    }
}

impl TriggerFieldError {
    /// The name of the field, if it is about one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Unknown { field, .. } => Some(field),
            Self::Missing { field, .. } | Self::Value { field, .. } => Some(field),
            Self::Decode(_) => None,
        }
    }
}

/// Names of fields, for messages.
fn names(fields: &[&str]) -> String {
    format!("`{}`", fields.join("`, `"))
}

/// Checks that settings have the fields of their kind. A `null` counts as no value.
pub(super) fn check_fields(
    kind: &'static str,
    fields: &'static [TriggerField],
    settings: &Map<String, Value>,
) -> Result<(), TriggerFieldError> {
    if let Some(field) = settings.keys().find(|key| fields.iter().all(|field| field.name != *key)) {
        let known = fields.iter().map(|field| field.name).collect();
        return Err(TriggerFieldError::Unknown { kind, field: field.clone(), known });
    }
    for field in fields {
        match settings.get(field.name).filter(|value| !value.is_null()) {
            None if field.required => {
                return Err(TriggerFieldError::Missing { kind, field: field.name });
            }
            Some(value) if !field.value.takes(value) => {
                let expected = field.value.expected();
                return Err(TriggerFieldError::Value { field: field.name, expected });
            }
            None | Some(_) => {}
        }
    }
    Ok(())
}
