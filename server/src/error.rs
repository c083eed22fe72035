//! Why a server does not start, or stopped.

/// Each says in one sentence what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration.
    #[error("{0}")]
    Config(String),
    /// The data folder.
    #[error("the data folder `{path}` {what}")]
    Folder {
        /// Which.
        path: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// An address.
    #[error("cannot listen on `{address}` ({name}): {reason}")]
    Listen {
        /// Which flag.
        name: &'static str,
        /// Which address.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The database or the queue.
    #[error("{0}")]
    Store(String),
    /// Sandboxes.
    #[error("{0}")]
    Sandbox(String),
    /// Something ended that must not.
    #[error("{0}")]
    Broken(String),
}
