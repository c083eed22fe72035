//! The database: connections, transactions, deadlines.
//!
//! SQLite has exactly one connection that writes, and a few that read; PostgreSQL one pool.

use std::fs::OpenOptions;
use std::future::ready;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use futures_util::FutureExt as _;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Any, AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Transaction};

use super::dialect::{Dialect, Durability};
use super::error::DatabaseError;
use super::migrations::migrate;

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct SqlDatabaseOptions {
    /// Connections to PostgreSQL; readers of SQLite beside its one writer. At least 1.
    pub connections: u32,
    /// The longest wait for a connection to be made or to become free.
    pub acquire_timeout: Duration,
    /// The longest wait for the answer to one use of the database, all its statements together.
    pub deadline: Duration,
    /// For SQLite; PostgreSQL's own settings decide there.
    pub durability: Durability,
}

/// An open, migrated database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlDatabase {
    dialect: Dialect,
    writer: AnyPool,
    reader: AnyPool,
    deadline: Duration,
}

impl Default for SqlDatabaseOptions {
    fn default() -> Self {
        Self {
            connections: 8,
            acquire_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(15),
            durability: Durability::PowerLoss,
        }
    }
}

impl SqlDatabase {
    /// Opens and migrates what the URL names: `sqlite:PATH` (made if absent), `sqlite::memory:`
    /// (lives as long as this), `postgres://…`.
    ///
    /// # Errors
    /// [`DatabaseError::Url`]; [`DatabaseError::Newer`] for a database of a newer program; what keeps it from
    /// being reached or written.
    pub async fn open(url: &str) -> Result<Self, DatabaseError> {
        Self::open_with(url, &SqlDatabaseOptions::default()).await
    }

    /// Opens and migrates an SQLite file, whatever characters its path holds.
    ///
    /// # Errors
    /// As [`SqlDatabase::open`].
    pub async fn open_file(
        path: &Path,
        options: &SqlDatabaseOptions,
    ) -> Result<Self, DatabaseError> {
        let connect = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        Self::open_with(connect.to_url_lossy().as_str(), options).await
    }

    /// As [`SqlDatabase::open`], with options.
    ///
    /// # Errors
    /// As [`SqlDatabase::open`].
    pub async fn open_with(url: &str, options: &SqlDatabaseOptions) -> Result<Self, DatabaseError> {
        install_default_drivers();
        let scheme = url.split(':').next().unwrap_or_default();
        let db = match scheme {
            "sqlite" => Self::open_sqlite(url, options).await?,
            "postgres" | "postgresql" => Self::open_postgres(url, options).await?,
            _ => return Err(DatabaseError::Url(without_password(url))),
        };
        Ok(db)
    }

    async fn open_sqlite(url: &str, options: &SqlDatabaseOptions) -> Result<Self, DatabaseError> {
        let parsed: SqliteConnectOptions =
            url.parse().map_err(|_| DatabaseError::Url(without_password(url)))?;
        let dialect = Dialect::Sqlite;
        // A connection to memory is the database: it must never be given up.
        let pool = pool(dialect, options).idle_timeout(None).max_lifetime(None);
        let (writer, reader);
        if url.contains(":memory:") || url.contains("mode=memory") {
            writer = pool.max_connections(1).connect_lazy_with(parse(url)?);
            reader = writer.clone();
            migrate(&mut *writer.acquire().await?).await?;
        } else {
            make_file(parsed.get_filename())?;
            let file = SqliteConnectOptions::new().filename(parsed.get_filename());
            let address = parse(file.to_url_lossy().as_str())?;
            prepare(&address, dialect.session(options.durability), options).await?;
            let pool = pool.before_acquire(|connection, _| ready(Ok(is_clean(connection))).boxed());
            writer = pool.clone().max_connections(1).connect_lazy_with(address.clone());
            reader = pool.max_connections(options.connections.max(1)).connect_lazy_with(address);
        }
        Ok(Self { dialect, writer, reader, deadline: options.deadline })
    }

    async fn open_postgres(url: &str, options: &SqlDatabaseOptions) -> Result<Self, DatabaseError> {
        let (dialect, address) = (Dialect::Postgres, parse(url)?);
        // Without the session's timeouts: another process may be migrating for a while.
        prepare(&address, &[], options).await?;
        let connections = options.connections.max(1);
        let pool = pool(dialect, options).max_connections(connections).connect_lazy_with(address);
        let (writer, reader) = (pool.clone(), pool);
        Ok(Self { dialect, writer, reader, deadline: options.deadline })
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// For single statements that only read.
    pub(crate) fn reader(&self) -> &AnyPool {
        &self.reader
    }

    /// For single statements that write.
    pub(crate) fn writer(&self) -> &AnyPool {
        &self.writer
    }

    /// A transaction that will write. Rolled back if dropped.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, DatabaseError> {
        Ok(self.writer.begin_with(self.dialect.begin_write()).await?)
    }

    /// A transaction that only reads, and sees one moment.
    pub(crate) async fn begin_snapshot(&self) -> Result<Transaction<'static, Any>, DatabaseError> {
        Ok(self.reader.begin_with(self.dialect.begin_snapshot()).await?)
    }

    /// Gives a use of the database its deadline. What is cut off is rolled back.
    pub(crate) async fn within<T, E: From<DatabaseError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(DatabaseError::Deadline(self.deadline).into()),
        }
    }

    /// Closes all connections, letting running statements end first.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

fn pool(dialect: Dialect, options: &SqlDatabaseOptions) -> AnyPoolOptions {
    let session = dialect.session(options.durability);
    AnyPoolOptions::new()
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire(dialect == Dialect::Postgres)
        .after_connect(move |connection, _| {
            async move {
                for statement in session {
                    sqlx::raw_sql(*statement).execute(&mut *connection).await?;
                }
                Ok(())
            }
            .boxed()
        })
}

/// Whether a connection has nothing left from before. On a disk that is full or fails SQLite rolls
/// back by itself, the driver's own roll-back is then refused, and the driver believes for ever
/// that a transaction is open: such a connection is given up, and another one made.
fn is_clean(connection: &AnyConnection) -> bool {
    !connection.is_in_transaction()
}

/// Migrates over a connection of its own: an advisory lock goes with it, whatever happens, and
/// unlike a pool's it says why there is none.
async fn prepare(
    address: &AnyConnectOptions,
    session: &[&'static str],
    options: &SqlDatabaseOptions,
) -> Result<(), DatabaseError> {
    let connecting = AnyConnection::connect_with(address);
    let mut connection = tokio::time::timeout(options.acquire_timeout, connecting)
        .await
        .map_err(|_| DatabaseError::Deadline(options.acquire_timeout))??;
    for statement in session {
        sqlx::raw_sql(*statement).execute(&mut connection).await?;
    }
    migrate(&mut connection).await?;
    Ok(connection.close().await?)
}

fn parse(url: &str) -> Result<AnyConnectOptions, DatabaseError> {
    let options: AnyConnectOptions =
        url.parse().map_err(|_| DatabaseError::Url(without_password(url)))?;
    Ok(options.disable_statement_logging())
}

/// Makes the file with mode 0600: it holds users' passwords and encrypted keys. SQLite gives
/// the files beside it the same mode.
fn make_file(path: &Path) -> Result<(), DatabaseError> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(reason) => Err(DatabaseError::File { path: path.into(), reason }),
    }
}

/// The URL as it may be shown: with no user, password or parameters.
fn without_password(url: &str) -> String {
    let head = url.split('?').next().unwrap_or_default();
    match (head.split_once("://"), head.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => head.into(),
    }
}

#[cfg(test)]
mod tests {
    use hanshu_core::ErrorKind;

    use super::*;

    /// Writes until the database refuses, after `pragma`.
    async fn refusal_after(pragma: &'static str) -> DatabaseError {
        let db = SqlDatabase::open("sqlite::memory:").await.unwrap();
        sqlx::raw_sql(pragma).execute(db.writer()).await.unwrap();
        for id in 0..1000 {
            let insert = "INSERT INTO access_keys (id, sealed, created_at) VALUES ($1, $2, 0)";
            let row = sqlx::query(insert).bind(id.to_string()).bind("x".repeat(4096));
            if let Err(error) = row.execute(db.writer()).await {
                return error.into();
            }
        }
        panic!("nothing was refused");
    }

    #[tokio::test]
    async fn a_full_disk_is_said_in_one_sentence() {
        let error = refusal_after("PRAGMA max_page_count = 60").await;
        assert!(matches!(error, DatabaseError::Full), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.to_string(), "the disk of the database is full: free some space");
    }

    #[tokio::test]
    async fn a_read_only_database_is_said_in_one_sentence() {
        let error = refusal_after("PRAGMA query_only = ON").await;
        assert!(matches!(error, DatabaseError::ReadOnly), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn a_wrong_statement_is_our_fault() {
        let db = SqlDatabase::open("sqlite::memory:").await.unwrap();
        let error = sqlx::query("SELECT nothing").execute(db.writer()).await.unwrap_err();
        assert_eq!(DatabaseError::from(error).kind(), ErrorKind::Internal);
    }

    #[tokio::test]
    async fn a_commit_of_sqlite_is_synced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hanshu.db");
        let db = SqlDatabase::open_file(&file, &SqlDatabaseOptions::default()).await.unwrap();
        let full: i64 =
            sqlx::query_scalar("PRAGMA synchronous").fetch_one(db.writer()).await.unwrap();
        let journal: String =
            sqlx::query_scalar("PRAGMA journal_mode").fetch_one(db.reader()).await.unwrap();
        assert_eq!((full, journal.as_str()), (2, "wal"));
    }

    #[test]
    fn a_password_is_never_shown() {
        for url in ["mysql://u:secret@h/d", "mysql://u:se@cret@h/d?password=secret"] {
            let shown = without_password(url);
            assert!(!shown.contains("cret"), "{shown}");
            assert!(shown.contains("…@h/d"), "{shown}");
        }
    }
}
