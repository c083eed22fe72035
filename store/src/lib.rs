//! Persistence: functions, records, queues and packages, in SQL databases, in Redis, in
//! append-only files and in folders. The only crate that knows sqlx, redis and zip.

mod claim_token;
mod journal;
mod packages;
mod ready_signal;
mod redis;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod segments;
mod sql;
mod stored;

pub use journal::{DroppedEntries, JournalWriter};
#[cfg(any(test, fuzzing))]
pub use packages::package;
pub use packages::{FolderPackages, UnpackLimits, unpack};
pub use redis::{EndedStream, RedisOptions, RedisQueue};
pub use segments::{SegmentJournal, SegmentOptions};
pub use sql::{
    DatabaseError, Dialect, Durability, SqlDatabase, SqlDatabaseOptions, SqlEndedEvents,
    SqlHistory, SqlJournal, SqlJournalOptions, SqlNodes, SqlQueue, SqlRegistry, statements,
};
