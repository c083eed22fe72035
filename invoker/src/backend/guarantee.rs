//! What a backend guarantees on this host: printed at the start, and a table in ARCHITECTURE.md.

use std::fmt;

/// One guarantee to whoever deploys functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxGuarantee {
    /// What is guaranteed, in a few words.
    pub what: &'static str,
    /// How far it holds here.
    pub level: GuaranteeLevel,
    /// Why it does not hold, or what is different; empty where it holds without restriction.
    pub reason: String,
}

/// How far a guarantee holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuaranteeLevel {
    /// It holds as documented.
    Full,
    /// With a restriction.
    Partial,
    /// It does not hold on this machine.
    None,
}

impl SandboxGuarantee {
    pub(crate) fn full(what: &'static str) -> Self {
        Self { what, level: GuaranteeLevel::Full, reason: String::new() }
    }

    pub(crate) fn partial(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, level: GuaranteeLevel::Partial, reason: reason.into() }
    }

    pub(crate) fn none(what: &'static str, reason: impl Into<String>) -> Self {
        Self { what, level: GuaranteeLevel::None, reason: reason.into() }
    }
}

impl fmt::Display for GuaranteeLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Full => "held",
            Self::Partial => "partly",
            Self::None => "no",
        })
    }
}

impl fmt::Display for SandboxGuarantee {
    /// `memory limit: partly (reason)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.level)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}
