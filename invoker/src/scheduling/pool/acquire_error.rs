//! Why an invocation got no sandbox.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::{Refusal, Verdict};

use crate::sandbox::launch::StartFailure;
use crate::sandbox::logs::SandboxLog;

/// Why an invocation got no sandbox.
#[derive(Clone, Debug)]
pub(crate) struct AcquireError {
    pub(crate) verdict: Verdict,
    /// What the sandbox printed that did not come up.
    pub(crate) log: Option<Arc<SandboxLog>>,
    /// How long that start took.
    pub(crate) init: Option<Duration>,
}

impl From<Verdict> for AcquireError {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, log: None, init: None }
    }
}

impl From<Refusal> for AcquireError {
    fn from(refusal: Refusal) -> Self {
        Verdict::Refused(refusal).into()
    }
}

impl AcquireError {
    /// The node or the pool cannot serve at the moment.
    pub(crate) fn unavailable(reason: &str) -> Self {
        unavailable(reason).into()
    }

    /// The start that the invocation waited for failed. Takes the failure's log: it is shown to the
    /// first who waited.
    pub(super) fn start_failed(failure: &mut StartFailure) -> Self {
        Self { verdict: failure.verdict.clone(), log: failure.log.take(), init: Some(failure.took) }
    }
}

/// The verdict that the node cannot serve at the moment.
pub(crate) fn unavailable(reason: &str) -> Verdict {
    Verdict::Refused(Refusal::Unavailable { reason: reason.into() })
}
