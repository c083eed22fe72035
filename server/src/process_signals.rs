//! SIGTERM and SIGINT, which stop the server.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::Error;

/// Registered before anything starts: a signal that arrives during the start is handled once the
/// server runs.
#[derive(Debug)]
pub(crate) struct ProcessSignals {
    term: Signal,
    int: Signal,
}

impl ProcessSignals {
    pub(crate) fn register() -> Result<Self, Error> {
        let register = |kind| signal(kind).map_err(|error| Error::Broken(error.to_string()));
        Ok(Self {
            term: register(SignalKind::terminate())?,
            int: register(SignalKind::interrupt())?,
        })
    }

    /// Waits for either signal.
    pub(crate) async fn recv(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
