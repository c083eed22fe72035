//! The languages that functions are written in, and SCF's names for them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::NameError;

/// How a function's code is started: one image, one bootstrap or adapter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeFamily {
    /// Python 3 with the platform's bootstrap.
    Python,
    /// Node.js with the platform's bootstrap.
    Nodejs,
    /// A Go binary built on `scf-go-lib` or on Lambda's library in its RPC mode.
    Go,
    /// An executable that starts with `#!` and runs once per event.
    Shell,
    /// An executable `bootstrap` that speaks SCF's custom runtime API.
    Custom,
}

/// A runtime as the user named it: `python`, or an SCF name such as `Python3.10`. The name is
/// kept and shown to the function; the [`RuntimeFamily`] decides what runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Runtime {
    name: Box<str>,
    family: RuntimeFamily,
}

impl RuntimeFamily {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Python, Self::Nodejs, Self::Go, Self::Shell, Self::Custom];

    /// The name in `hanshu.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Nodejs => "nodejs",
            Self::Go => "go",
            Self::Shell => "shell",
            Self::Custom => "custom",
        }
    }

    /// Whether the runtime listens on a port of its own, so that it must not share a network
    /// namespace with another sandbox.
    pub fn listens(self) -> bool {
        matches!(self, Self::Go | Self::Custom)
    }
}

impl Runtime {
    /// As the user named it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs it.
    pub fn family(&self) -> RuntimeFamily {
        self.family
    }
}

impl FromStr for Runtime {
    type Err = NameError;

    /// SCF's names are accepted in any case (`scf` does so), versions are those that SCF lists;
    /// whichever is named, the node's own interpreter of the family runs it.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        let family = match lower.as_str() {
            "python" | "python3.6" | "python3.7" | "python3.9" | "python3.10" | "python3.11" => {
                RuntimeFamily::Python
            }
            "nodejs" | "nodejs10.15" | "nodejs12.16" | "nodejs14.18" | "nodejs16.13"
            | "nodejs18.15" | "nodejs20.19" => RuntimeFamily::Nodejs,
            "go" | "go1" => RuntimeFamily::Go,
            "shell" => RuntimeFamily::Shell,
            "custom" | "customruntime" => RuntimeFamily::Custom,
            _ => {
                return Err(NameError::new(
                    "runtime",
                    text,
                    "python, nodejs, go, shell, custom, or an SCF name: Python3.6 to Python3.11, \
                     Nodejs10.15 to Nodejs20.19, Go1, CustomRuntime",
                ));
            }
        };
        Ok(Self { name: text.into(), family })
    }
}

impl TryFrom<String> for Runtime {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Runtime> for String {
    fn from(runtime: Runtime) -> Self {
        runtime.name.into()
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
