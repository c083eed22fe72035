//! SQLite always, and PostgreSQL where `TEST_POSTGRES_URL` names one. In CI it must.

use hanshu_store::{Durability, SqlDatabase, SqlDatabaseOptions};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

/// A database of a test's own, and what keeps it alive.
pub(crate) struct TestDb {
    pub(crate) name: &'static str,
    pub(crate) db: SqlDatabase,
    pub(crate) url: String,
    _folder: Option<TempDir>,
}

/// Each kind once, freshly migrated.
pub(crate) async fn databases() -> Vec<TestDb> {
    let mut all = vec![memory().await, file().await];
    if let Some(url) = postgres_url().await {
        all.push(open("postgres", url, None).await);
    }
    all
}

/// A fresh schema of the PostgreSQL that the tests were given.
pub(crate) async fn postgres_url() -> Option<String> {
    let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
        assert!(std::env::var("CI").is_err(), "CI tests PostgreSQL: set TEST_POSTGRES_URL");
        eprintln!("TEST_POSTGRES_URL is not set: PostgreSQL is not tested");
        return None;
    };
    let schema = format!("t{}", uuid::Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let sign = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{sign}options=-c%20search_path%3D{schema}"))
}

pub(crate) async fn memory() -> TestDb {
    open("sqlite memory", "sqlite::memory:".into(), None).await
}

/// A file that is not synced: what a test writes need not survive a power cut.
pub(crate) async fn file() -> TestDb {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("hanshu.db").display());
    open("sqlite file", url, Some(folder)).await
}

async fn open(name: &'static str, url: String, folder: Option<TempDir>) -> TestDb {
    let options = SqlDatabaseOptions {
        durability: Durability::ProcessCrash,
        ..SqlDatabaseOptions::default()
    };
    let db = SqlDatabase::open_with(&url, &options).await.unwrap();
    TestDb { name, db, url, _folder: folder }
}
