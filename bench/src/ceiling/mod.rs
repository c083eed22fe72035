//! What hanshu is measured against, in the same run.

mod bare_docker;
pub(crate) mod front;
pub(crate) mod hello;
mod redis;
mod sqlite;
mod workers;

pub(crate) use bare_docker::{BareDocker, Program};
pub(crate) use redis::Redis;
pub(crate) use sqlite::inserted_per_second;
pub(crate) use workers::{LABEL, Language, Workers, subcommand};
