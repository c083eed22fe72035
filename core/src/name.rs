//! Names, checked once on the way in. Code that holds one never checks again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name or value that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{value}` is not valid: expected {rule}")]
pub struct NameError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

impl NameError {
    /// `what` broke `rule`. Only the first 80 characters of the value are kept.
    pub fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        Self { what, value: value.chars().take(80).collect(), rule }
    }

    /// Which field it was.
    pub fn field(&self) -> &'static str {
        self.what
    }

    /// What was found; at most 80 characters.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What was expected.
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

fn word(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $lengths:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                word(text, $lengths)
                    .then(|| Self(text.into()))
                    .ok_or_else(|| NameError::new($what, text, $rule))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Keeps functions of the same name apart. 1 to 60 characters, letters, digits, `-` and `_`,
    /// starting with a letter and ending with a letter or digit.
    Namespace, "namespace", 1..=60,
    "1 to 60 letters, digits, `-` and `_`, starting with a letter, ending with a letter or digit"
}

name! {
    /// A function's name within its namespace. 2 to 60 characters, letters, digits, `-` and `_`,
    /// starting with a letter and ending with a letter or digit (SCF, `CreateFunction`).
    FunctionName, "function name", 2..=60,
    "2 to 60 letters, digits, `-` and `_`, starting with a letter, ending with a letter or digit"
}

name! {
    /// A trigger's name within its function. 1 to 100 characters, letters, digits, `-` and `_`,
    /// starting with a letter and ending with a letter or digit.
    TriggerName, "trigger name", 1..=100,
    "1 to 100 letters, digits, `-` and `_`, starting with a letter, ending with a letter or digit"
}

impl Default for Namespace {
    /// `default`, where everything lives that says nothing else.
    fn default() -> Self {
        Self("default".into())
    }
}

/// Which version of a function is meant.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub enum Qualifier {
    /// `$LATEST`: what was deployed last.
    #[default]
    Latest,
    /// A published, immutable version: 1, 2, 3 …
    Version(u32),
}

impl FromStr for Qualifier {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "$LATEST" => Ok(Self::Latest),
            _ => text
                .parse()
                .ok()
                .filter(|n| 1 <= *n && !text.starts_with('+'))
                .map(Self::Version)
                .ok_or_else(|| {
                    NameError::new("qualifier", text, "`$LATEST` or a version number from 1")
                }),
        }
    }
}

impl TryFrom<String> for Qualifier {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Qualifier> for String {
    fn from(qualifier: Qualifier) -> Self {
        qualifier.to_string()
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("$LATEST"),
            Self::Version(number) => number.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_names_follow_the_rule_of_scf() {
        for good in ["ab", "hello", "a-b_c9", &"a".repeat(60)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good}");
        }
        for bad in ["", "a", "9a", "-a", "a-", "a_", "a.b", "é1", "a b", "../x", &"a".repeat(61)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_qualifier_is_latest_or_a_number() {
        assert_eq!("$LATEST".parse(), Ok(Qualifier::Latest));
        assert_eq!("12".parse(), Ok(Qualifier::Version(12)));
        for bad in ["", "0", "-1", "+1", "latest", "4294967296"] {
            assert!(bad.parse::<Qualifier>().is_err(), "{bad}");
        }
    }
}
