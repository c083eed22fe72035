//! What a backend promises on this host: printed at the start, and a table in ARCHITECTURE.md.

use std::fmt;

/// One promise to whoever deploys functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarantee {
    /// What is promised, a few words.
    pub what: &'static str,
    /// Whether it holds here.
    pub held: Held,
    /// Why not, or what is different; empty where it holds without more.
    pub reason: String,
}

/// How far a promise holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// As documented.
    Held,
    /// With a restriction.
    Partly,
    /// Not here.
    No,
}

impl Guarantee {
    pub(crate) fn held(what: &'static str) -> Self {
        Self { what, held: Held::Held, reason: String::new() }
    }

    pub(crate) fn partly(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, held: Held::Partly, reason: reason.into() }
    }

    pub(crate) fn no(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, held: Held::No, reason: reason.into() }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Held => "held",
            Self::Partly => "partly",
            Self::No => "no",
        })
    }
}

impl fmt::Display for Guarantee {
    /// `memory limit: partly (reason)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.held)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}
