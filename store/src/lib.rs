//! Keeping: functions, records, queues, packages, on SQL databases, on Redis, in append-only files
//! and in folders. The only crate that knows sqlx, redis and zip.

mod error;
mod redis;
mod packages;
mod sql;
mod stored;
mod wake;

pub use error::Error;
pub use redis::{RedisOptions, RedisQueue};
pub use packages::{FolderPackages, UnpackLimits, unpack};
pub use sql::dialect::{Dialect, Durability};
pub use sql::nodes::SqlNodes;
pub use sql::queue::SqlQueue;
pub use sql::registry::SqlRegistry;
pub use sql::{Db, DbOptions, statements};
