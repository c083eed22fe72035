//! What kind of thing went wrong, the same eight everywhere.

/// Every crate's error has a `kind`; only the edges turn it into a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request or value breaks a rule; trying again will not help.
    Invalid,
    /// No key, or a wrong one.
    Unauthenticated,
    /// The key may not do this.
    Forbidden,
    /// No such thing.
    NotFound,
    /// The thing exists already, or changed meanwhile.
    Conflict,
    /// A limit was reached; trying later may help.
    Throttled,
    /// Something we need is away; trying later may help.
    Unavailable,
    /// Our fault. The message never reaches a caller.
    Internal,
}
