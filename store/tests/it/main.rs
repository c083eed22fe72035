//! The ports' contracts, run on every adapter that can be had here.
#![cfg(test)]
#![expect(clippy::print_stderr, reason = "a test that cannot run here says so")]

mod databases;
mod ended_events;
mod golden;
mod history_plans;
mod journal;
mod journal_files;
mod nodes;
mod open;
mod packages;
mod queue;
mod queue_cancel;
mod queue_group;
mod queue_kinds;
mod queue_model;
mod queue_race;
mod queue_ready;
mod queue_redis;
mod queue_release;
mod registries;
mod registry;
mod registry_changes;
mod survive;
