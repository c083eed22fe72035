//! Starting functions: every event comes in through the [`Intake`], from an API call, a timer's
//! tick, an HTTP trigger or (on its way out of a queue) a dispatcher.
//!
//! Decisions are pure and apart: when a timer ticks ([`Schedule`]), what follows a failed attempt
//! ([`RetryPolicy`]), which trigger a request is for ([`RouteTable`]), what a function's answer
//! means in HTTP ([`http`]). Nothing here knows our own stores or a sandbox; `cron` is known to
//! `schedule/text.rs`, the Redis client (for users' streams) to `sources`.

mod check;
mod dispatcher;
mod dispatchers;
mod error;
pub mod http;
mod intake;
mod metrics;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod retry;
mod schedule;
mod shares;
mod sources;
mod stop;
mod timer;
mod watched;

#[cfg(test)]
mod doubles;

pub use check::{TriggerError, check_trigger, next_ticks};
pub use dispatcher::Parts;
pub use dispatchers::{DispatcherOptions, Dispatchers};
pub use error::Error;
pub use http::route::{Lookup, RouteMatch, RouteTable};
pub use intake::{Accepted, Answered, Call, Intake, IntakeOptions, check_json};
pub use retry::{Decision, RetryPolicy, Standing};
#[cfg(any(test, fuzzing))]
pub use schedule::cron;
pub use schedule::{CronError, Schedule};
pub use sources::redis::RedisSources;
pub use sources::state::{SourceState, SourceStates};
pub use stop::Stop;
pub use timer::{TimerOptions, Timers, fire};
pub use watched::{TriggersFeed, TriggersView};
