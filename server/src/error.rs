//! Errors that keep a server from starting, or end it.

/// Each message is one sentence that says what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is invalid.
    #[error("{0}")]
    Config(String),
    /// The data folder cannot be used.
    #[error("the data folder `{path}` {what}")]
    Folder {
        /// The folder's path.
        path: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// An address cannot be bound.
    #[error("cannot listen on `{address}` ({name}): {reason}")]
    Listen {
        /// Name of the setting.
        name: &'static str,
        /// The setting's value.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The database or the queue cannot be used.
    #[error("{0}")]
    Store(String),
    /// Sandboxes cannot be run.
    #[error("{0}")]
    Sandbox(String),
    /// A part of the server failed.
    #[error("{0}")]
    Broken(String),
}
