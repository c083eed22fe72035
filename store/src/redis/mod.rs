//! Queues in Redis 7 or newer: one hash for each event, sorted sets for who waits and who is
//! held, a script wherever several keys change at once.
//!
//! Sorted sets, not streams with consumer groups: a hold is as long as its claim says and can be
//! renewed, an event that is put back stands where its due time says, and the earliest time of
//! every queue is one lookup. A pending list knows only how long ago something was read, and is
//! searched from its start.

mod connection;
mod context;
mod durability;
mod ended_stream;
mod keys;
mod push_batches;
mod queue;
mod replies;
mod source;

pub use ended_stream::EndedStream;
pub use queue::{RedisOptions, RedisQueue};
