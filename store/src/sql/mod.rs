//! SQLite and PostgreSQL: connections, migrations, and the adapters on them.
//!
//! Public methods of the adapters open the transaction, private functions take it.

#[macro_use]
mod row;

mod all_statements;
mod database;
mod dialect;
mod ended_events;
mod error;
mod history;
mod journal;
mod json_rows;
mod migrations;
mod nodes;
mod queue;
mod registry;

pub use all_statements::statements;
pub use database::{SqlDatabase, SqlDatabaseOptions};
pub use dialect::{Dialect, Durability};
pub(crate) use ended_events::ForeignEnd;
pub use ended_events::SqlEndedEvents;
pub use error::DatabaseError;
pub use history::SqlHistory;
pub use journal::{SqlJournal, SqlJournalOptions};
pub use nodes::SqlNodes;
pub use queue::SqlQueue;
pub use registry::SqlRegistry;
