//! Streams of users that feed functions. A broker is a file that implements
//! [`consumer::StreamSource`] and [`consumer::StreamConsumer`], and a row in `trigger_kinds.rs`;
//! everything else is the same for all brokers.

mod batch_decision;
mod batch_event;
pub(crate) mod consumer;
#[cfg(test)]
mod consumer_contract;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
pub(crate) mod memory;
mod reader;
pub(crate) mod reader_set;
mod redis;
pub(crate) mod stream_status;
