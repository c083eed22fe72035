//! Starting functions: every event comes in through the [`EventIntake`], from an API call, a
//! timer's tick or an HTTP trigger; a dispatcher takes queued events out again, and stream readers
//! feed batches of users' streams.
//!
//! Decisions are pure and apart: when a timer ticks ([`CronSchedule`]), what follows a failed
//! attempt ([`RetryPolicy`]), which trigger a request is for ([`RouteTable`]), what a function's
//! answer means in HTTP ([`http`]). This crate knows neither the platform's stores nor sandboxes;
//! `cron` is known to `schedule/cron_parse.rs`, the Redis client (for users' streams) to
//! `sources/redis.rs`.

mod claimed_event;
mod dispatch_context;
mod dispatcher;
mod fair_queue;
pub mod http;
mod intake;
mod intake_error;
mod metrics;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod retry;
mod schedule;
mod sources;
mod stop_signals;
#[cfg(test)]
mod test_support;
mod timer;
mod trigger_error;
mod trigger_kinds;
mod trigger_rules;
mod trigger_watch;

pub use dispatch_context::DispatchContext;
pub use dispatcher::{DispatcherOptions, QueueDispatcher};
pub use http::route::{RouteLookup, RouteMatch, RouteTable};
pub use intake::{
    AcceptedEvent, CompletedCall, EventIntake, FunctionCall, IntakeOptions, check_json,
};
pub use intake_error::IntakeError;
pub use retry::{RetryDecision, RetryInput, RetryPolicy};
#[cfg(any(test, fuzzing))]
pub use schedule::cron;
pub use schedule::{CronError, CronSchedule};
pub use sources::reader_set::StreamReaderSet;
pub use sources::stream_status::{StreamStatus, StreamStatusMap};
pub use stop_signals::StopSignals;
pub use timer::{TimerOptions, TimerScheduler, fire_timer};
pub use trigger_error::TriggerError;
pub use trigger_kinds::{check_trigger, view_trigger};
pub use trigger_rules::{TickView, TriggerView, ViewContext};
pub use trigger_watch::{TriggersFeed, TriggersView};
