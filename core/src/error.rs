//! What kind of thing went wrong, the same eight everywhere, and the error behind an error.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Every crate's error has a `kind`; only the edges turn it into a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request or value breaks a rule; trying again will not help.
    Invalid,
    /// No key, or a wrong one.
    Unauthenticated,
    /// The key may not do this.
    Forbidden,
    /// What was named does not exist.
    NotFound,
    /// The thing exists already, or changed meanwhile.
    Conflict,
    /// A limit was reached; trying later may help.
    Throttled,
    /// A service that this needs is unavailable; trying later may help.
    Unavailable,
    /// Our fault. The message never reaches a caller.
    Internal,
}

/// The error of an adapter that a port's error was made from. Errors of ports are cloned where several
/// callers share a failed transaction, so it is shared; the ports know no adapter, so it has no type.
#[derive(Clone, Debug)]
pub struct ErrorCause(Arc<dyn Error + Send + Sync>);

impl ErrorCause {
    /// Keeps an error.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(error))
    }
}

impl fmt::Display for ErrorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ErrorCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl From<String> for ErrorCause {
    fn from(text: String) -> Self {
        Self(Box::<dyn Error + Send + Sync>::from(text).into())
    }
}

impl From<&str> for ErrorCause {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}
