//! Every statement that this crate runs, so that a test prepares each of them on both databases.

use super::database::SqlDatabase;
use super::dialect::Dialect;
use super::error::DatabaseError;
use super::{ended_events, history, journal, nodes, queue, registry};

/// Every statement that this crate runs on that database.
pub fn statements(dialect: Dialect) -> Vec<&'static str> {
    let mut all = registry::statements();
    all.extend(nodes::STATEMENTS);
    all.extend(journal::statements(dialect));
    all.extend(queue::statements(dialect));
    all.extend(ended_events::statements(dialect));
    all.extend(history::statements(dialect));
    all.push(dialect.now());
    all
}

impl SqlDatabase {
    /// Prepares every statement without running it; returns how many there are.
    ///
    /// # Errors
    /// The first statement that the database does not take.
    pub async fn prepare_all(&self) -> Result<usize, DatabaseError> {
        let all = statements(self.dialect());
        let mut connection = self.writer().acquire().await?;
        for statement in &all {
            sqlx::Executor::prepare(&mut *connection, sqlx::SqlStr::from_static(statement)).await?;
        }
        Ok(all.len())
    }
}
