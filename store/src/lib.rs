//! Keeping: functions, records, queues, packages, on SQL databases, on Redis, in append-only files
//! and in folders. The only crate that knows sqlx, redis and zip.

mod error;
mod journal;
mod packages;
mod redis;
#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;
mod segments;
mod sql;
mod stored;
mod wake;

pub use error::Error;
pub use journal::{Dropped, JournalWriter};
#[cfg(any(test, fuzzing))]
pub use packages::package;
pub use packages::{FolderPackages, UnpackLimits, unpack};
pub use redis::{RedisOptions, RedisQueue};
pub use segments::{SegmentJournal, SegmentOptions};
pub use sql::dialect::{Dialect, Durability};
pub use sql::journal::{SqlJournal, SqlJournalOptions};
pub use sql::nodes::SqlNodes;
pub use sql::queue::SqlQueue;
pub use sql::registry::SqlRegistry;
pub use sql::{Db, DbOptions, statements};
