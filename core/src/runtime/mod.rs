//! The languages that functions are written in, and SCF's names for them.

mod custom;
mod go;
mod nodejs;
mod profile;
mod python;
mod shell;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::NameError;

pub use profile::{
    AdapterKind, CommandWord, HandlerRule, HostProgram, PrewarmProfile, RuntimeImage,
    RuntimeProfile,
};

/// The rows: one for each family.
static PROFILES: [RuntimeProfile; 5] =
    [python::PROFILE, nodejs::PROFILE, go::PROFILE, shell::PROFILE, custom::PROFILE];

/// How a function's code is started: a row of what the platform knows.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuntimeFamily(&'static RuntimeProfile);

/// A runtime as the user named it: `python`, or an SCF name such as `Python3.10`. The name is
/// kept and shown to the function; the [`RuntimeFamily`] decides what runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Runtime {
    name: Box<str>,
    family: RuntimeFamily,
}

impl RuntimeFamily {
    /// Python 3 with the platform's bootstrap.
    pub const PYTHON: Self = Self(&PROFILES[0]);
    /// Node.js with the platform's bootstrap.
    pub const NODEJS: Self = Self(&PROFILES[1]);
    /// A Go binary built on `scf-go-lib` or on Lambda's library in its RPC mode.
    pub const GO: Self = Self(&PROFILES[2]);
    /// An executable that starts with `#!` and runs once per event.
    pub const SHELL: Self = Self(&PROFILES[3]);
    /// An executable `bootstrap` that speaks SCF's custom runtime API.
    pub const CUSTOM: Self = Self(&PROFILES[4]);

    /// All of them, in the order of the rows.
    pub fn all() -> impl ExactSizeIterator<Item = Self> + Clone {
        PROFILES.iter().map(Self)
    }

    /// A family that is none of the rows: what tests try a new one with before it gets its row.
    pub const fn of(profile: &'static RuntimeProfile) -> Self {
        Self(profile)
    }

    /// The name in `hanshu.toml`.
    pub fn as_str(self) -> &'static str {
        self.0.name
    }

    /// What the platform knows of it.
    pub fn profile(self) -> &'static RuntimeProfile {
        self.0
    }
}

impl PartialEq for RuntimeFamily {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for RuntimeFamily {}

impl Hash for RuntimeFamily {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialOrd for RuntimeFamily {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RuntimeFamily {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(other.0.name)
    }
}

impl fmt::Debug for RuntimeFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl TryFrom<String> for RuntimeFamily {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let named = Self::all().find(|family| family.as_str() == text);
        named.ok_or_else(|| NameError::new("runtime", &text, "python, nodejs, go, shell or custom"))
    }
}

impl From<RuntimeFamily> for String {
    fn from(family: RuntimeFamily) -> Self {
        family.as_str().to_owned()
    }
}

impl Runtime {
    /// As the user named it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The family of programs that runs it.
    pub fn family(&self) -> RuntimeFamily {
        self.family
    }
}

impl From<RuntimeFamily> for Runtime {
    /// The family's own name for it.
    fn from(family: RuntimeFamily) -> Self {
        Self { name: family.as_str().into(), family }
    }
}

impl FromStr for Runtime {
    type Err = NameError;

    /// Names are accepted in any case, as `scf` does.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        let is_named = |family: &RuntimeFamily| {
            family.0.name == lower || family.0.scf_names.contains(&lower.as_str())
        };
        match RuntimeFamily::all().find(is_named) {
            Some(family) => Ok(Self { name: text.into(), family }),
            None => Err(NameError::new(
                "runtime",
                text,
                "python, nodejs, go, shell, custom, or an SCF name: Python3.6 to Python3.11, \
                 Nodejs10.15 to Nodejs20.19, Go1, CustomRuntime",
            )),
        }
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

#[cfg(test)]
mod tests;
