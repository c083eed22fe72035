//! Opening databases: good ones, bad ones, and several processes at once.

use hanshu_core::ErrorKind;
use hanshu_core::ports::FunctionRegistry as _;
use hanshu_store::{DatabaseError, SqlDatabase, SqlDatabaseOptions, SqlRegistry};
use sqlx::{Connection as _, SqliteConnection};

use crate::databases::{databases, file, postgres_url};

#[tokio::test]
async fn every_statement_can_be_prepared() {
    for test in databases().await {
        let count = test.db.prepare_all().await.unwrap_or_else(|e| panic!("{}: {e}", test.name));
        assert!(20 < count, "{}: only {count} statements", test.name);
    }
}

#[tokio::test]
async fn a_database_can_be_opened_again() {
    for test in databases().await.into_iter().filter(|test| test.name != "sqlite memory") {
        test.db.close().await;
        let again = SqlDatabase::open(&test.url).await.unwrap();
        SqlRegistry::new(again).ping().await.unwrap();
    }
}

#[tokio::test]
async fn several_processes_can_start_on_one_database_at_once() {
    let Some(url) = postgres_url().await else { return };
    let opening = (0..6).map(|_| SqlDatabase::open(&url));
    for opened in futures_util::future::join_all(opening).await {
        SqlRegistry::new(opened.unwrap()).ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_in_one_sentence() {
    let test = file().await;
    test.db.close().await;
    let mut connection = SqliteConnection::connect(&test.url).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', TRUE, x'00', 1)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let error = SqlDatabase::open(&test.url).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Newer { found: 9999, .. }), "{error:?}");
    assert!(error.to_string().contains("start the newer hanshu"), "{error}");
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent/hanshu.db");
    let error = SqlDatabase::open_file(&path, &SqlDatabaseOptions::default()).await.unwrap_err();
    assert!(matches!(error, DatabaseError::File { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hanshu.db");
    let text = "not a database, but somebody's notes ".repeat(100);
    std::fs::write(&path, &text).unwrap();
    let error = SqlDatabase::open_file(&path, &SqlDatabaseOptions::default()).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Damaged), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_path_may_hold_any_character() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mein % Ordner? #1 函数.db");
    let db = SqlDatabase::open_file(&path, &SqlDatabaseOptions::default()).await.unwrap();
    SqlRegistry::new(db).ping().await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn the_file_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = file().await;
    SqlRegistry::new(test.db.clone()).ping().await.unwrap();
    let path = test.url.trim_start_matches("sqlite:");
    for name in [path.to_owned(), format!("{path}-wal")] {
        let mode = std::fs::metadata(&name).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("postgres://someone:secret@127.0.0.1:{port}/hanshu");
    let error = SqlDatabase::open(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://someone@{}/hanshu", listener.local_addr().unwrap());
    let acquire_timeout = std::time::Duration::from_millis(200);
    let options = SqlDatabaseOptions { acquire_timeout, ..SqlDatabaseOptions::default() };
    let error = SqlDatabase::open_with(&url, &options).await.unwrap_err();
    assert!(matches!(error, DatabaseError::Deadline(_)), "{error:?}");
}

#[tokio::test]
async fn a_url_of_another_kind_is_refused_without_its_password() {
    let error = SqlDatabase::open("mysql://root:secret@db/hanshu").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(error.to_string().contains("postgres://"), "{error}");
}
