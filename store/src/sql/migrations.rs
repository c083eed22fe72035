//! The schema's migrations, and what it means when they cannot be applied.

use std::time::Duration;

use sqlx::AnyConnection;
use sqlx::migrate::{MigrateError, Migrator};

use super::error::DatabaseError;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long migrations may take, the wait for another process that runs them included.
const MIGRATE_DEADLINE: Duration = Duration::from_secs(300);

/// Brings the schema to the newest version.
///
/// # Errors
/// [`DatabaseError::Newer`], [`DatabaseError::Foreign`], or what the database says.
pub(super) async fn migrate(connection: &mut AnyConnection) -> Result<(), DatabaseError> {
    let work = MIGRATIONS.run_direct(None, connection, false);
    tokio::time::timeout(MIGRATE_DEADLINE, work)
        .await
        .map_err(|_| DatabaseError::Deadline(MIGRATE_DEADLINE))?
        .map_err(to_error)
}

fn to_error(error: MigrateError) -> DatabaseError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            DatabaseError::from(error)
        }
        MigrateError::VersionMissing(found) => {
            let known = newest();
            match known < found {
                true => DatabaseError::Newer { found, known },
                false => DatabaseError::Foreign(found),
            }
        }
        MigrateError::VersionMismatch(version) | MigrateError::Dirty(version) => {
            DatabaseError::Foreign(version)
        }
        other => DatabaseError::Statement(sqlx::Error::Migrate(Box::new(other))),
    }
}

fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}
