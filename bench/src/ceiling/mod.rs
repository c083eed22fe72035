//! What hanshu is measured against, in the same run.

pub(crate) mod front;
pub(crate) mod hello;
mod workers;

pub(crate) use workers::{LABEL, Language, Workers};
