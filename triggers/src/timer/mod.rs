//! Timers: their rules, and what fires them.

mod rules;
mod scheduler;

pub use rules::fire_timer;
pub use scheduler::{TimerOptions, TimerScheduler};
