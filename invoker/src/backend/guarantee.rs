//! What a backend promises on this host: printed at the start, and a table in ARCHITECTURE.md.

use std::fmt;

/// One promise to whoever deploys functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxGuarantee {
    /// What is promised, a few words.
    pub what: &'static str,
    /// Whether it holds here.
    pub held: GuaranteeLevel,
    /// Why not, or what is different; empty where it holds without more.
    pub reason: String,
}

/// How far a promise holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuaranteeLevel {
    /// As documented.
    Held,
    /// With a restriction.
    Partly,
    /// Not here.
    No,
}

impl SandboxGuarantee {
    pub(crate) fn held(what: &'static str) -> Self {
        Self { what, held: GuaranteeLevel::Held, reason: String::new() }
    }

    pub(crate) fn partly(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, held: GuaranteeLevel::Partly, reason: reason.into() }
    }

    pub(crate) fn no(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, held: GuaranteeLevel::No, reason: reason.into() }
    }
}

impl fmt::Display for GuaranteeLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Held => "held",
            Self::Partly => "partly",
            Self::No => "no",
        })
    }
}

impl fmt::Display for SandboxGuarantee {
    /// `memory limit: partly (reason)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.held)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}
