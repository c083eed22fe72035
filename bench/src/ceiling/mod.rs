//! The ceilings: what the machine can do without hanshu, measured in the same run.

pub(crate) mod axum_hello;
mod bare_docker;
mod bare_redis;
mod bare_sqlite;
mod container_workers;
pub(crate) mod worker_proxy;

pub(crate) use bare_docker::{BareDocker, ContainerProgram};
pub(crate) use bare_redis::BareRedis;
pub(crate) use bare_sqlite::inserted_per_second;
pub(crate) use container_workers::{ContainerWorkers, LABEL, WorkerLanguage, subcommand};
