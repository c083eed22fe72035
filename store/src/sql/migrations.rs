//! The schema's migrations, and what it means when they cannot be applied.

use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AnyConnection, SqlSafeStr as _};

use super::error::DatabaseError;

/// A migration's number, its name and its text.
type MigrationFile = (i64, &'static str, &'static str);

/// The files of `store/migrations`.
const FILES: [MigrationFile; 7] = [
    (1, "registry", include_str!("../../migrations/0001_registry.sql")),
    (2, "queue", include_str!("../../migrations/0002_queue.sql")),
    (3, "journal", include_str!("../../migrations/0003_journal.sql")),
    (4, "nodes", include_str!("../../migrations/0004_nodes.sql")),
    (5, "registry changes", include_str!("../../migrations/0005_registry_changes.sql")),
    (10, "ended events", include_str!("../../migrations/0010_ended_events.sql")),
    (11, "history age", include_str!("../../migrations/0011_history_age.sql")),
];

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let migration = |(version, name, text): MigrationFile| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(FILES.map(migration).into())
});

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_migration() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let known =
            FILES.map(|(version, name, _)| format!("{version:04}_{}.sql", name.replace(' ', "_")));
        assert_eq!(names, known);
        for (name, (_, _, text)) in names.iter().zip(FILES) {
            assert_eq!(std::fs::read_to_string(format!("{folder}/{name}")).unwrap(), text);
        }
    }
}
