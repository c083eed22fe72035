//! The vocabulary of hanshu, and its ports. No I/O.
//!
//! An [`Event`] for a function becomes an [`Invocation`] of one of its revisions, and ends as an
//! [`Outcome`]. The other crates do a step of that, or store what the steps need; they
//! meet at the traits in [`ports`].

mod actor;
mod authorize;
mod backoff;
mod clock;
mod digest;
mod error;
mod event;
mod function;
mod hex;
mod id;
mod invocation;
mod limits;
mod lock;
mod name;
mod outcome;
pub mod ports;
mod record;
mod runtime;
mod secret;
mod trigger;
mod triggers;

pub use actor::{Actor, ActorVia, Principal};
pub use authorize::{ForbiddenError, Permission, PermissionTarget, authorize};
pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock};
pub use digest::Digest;
pub use error::{ErrorCause, ErrorKind};
pub use event::{Event, FunctionCaller, Origin};
pub use function::{AsyncPolicy, FunctionConfig, FunctionId, Revision};
pub use hex::hex;
pub use id::{InstanceId, NodeId, RequestId};
pub use invocation::{Invocation, InvocationMode};
pub use jiff::Timestamp;
pub use limits::*;
pub use lock::lock;
pub use name::{FunctionName, NameError, Namespace, Qualifier, TriggerName};
pub use outcome::{Failure, Outcome, Refusal, Report, StatusCode, Verdict};
pub use record::{
    AsyncState, Attempt, ColdStart, ColdStartParts, InvocationRecord, InvocationState, LogBatch,
    LogLine, LogSource,
};
pub use runtime::{
    AdapterKind, CommandWord, HandlerRule, HostProgram, PrewarmProfile, Runtime, RuntimeFamily,
    RuntimeImage, RuntimeProfile,
};
pub use secret::Secret;
pub use trigger::{
    FieldValue, HttpAuth, HttpTrigger, RedisTrigger, TimerTrigger, Trigger, TriggerConfig,
    TriggerField, TriggerFieldError, TriggerId, TriggerKind, TriggerProfile, TriggerSpec,
    decode_config,
};
pub use triggers::{ChangedTriggers, TriggerSet};
