//! The data plane: a single-threaded runtime for listeners, invocations and the exchange with
//! sandboxes, so that a warm call never switches threads. Everything slow runs on the general
//! runtime.

use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// The data plane's thread; it ends when this is closed or dropped.
#[derive(Debug)]
pub(crate) struct DataPlane {
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl DataPlane {
    pub(crate) fn start() -> Result<Self, Error> {
        let broken = |error: std::io::Error| Error::Broken(format!("no data plane: {error}"));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(broken)?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let until = stop.clone();
        let thread = std::thread::Builder::new()
            .name("hanshu-data".into())
            .spawn(move || runtime.block_on(until.cancelled()))
            .map_err(broken)?;
        Ok(Self { handle, stop, thread: Some(thread) })
    }

    /// The handle to spawn tasks on the data plane.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends the thread; what still runs on it is dropped.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It ends within moments: nothing blocks on that thread.
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("The data plane's thread panicked");
            }
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
