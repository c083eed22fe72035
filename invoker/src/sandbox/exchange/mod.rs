//! The exchange of events and answers with a runtime.

mod connection;
mod event_exchange;
#[cfg(any(test, fuzzing))]
mod properties;

pub(crate) use connection::{ConnectionError, DataConnection, ReceivedFrame};
pub(crate) use event_exchange::{EventExchange, ExchangeError, RuntimeAnswer};
#[cfg(any(test, fuzzing))]
pub use properties::exchange;
