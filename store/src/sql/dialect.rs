//! SQLite or PostgreSQL, and how their sessions, transactions and clocks differ. Statements that
//! differ (batches, claims and collections of the queue, inserts of the journal) are chosen by
//! [`Dialect`] in the files of their tables; all others are one text for both.

/// Which database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// A file of ours, or memory.
    Sqlite,
    /// PostgreSQL 13 or newer, shared by several processes.
    Postgres,
}

/// How surely a committed transaction outlives a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Synced to disk before a commit returns: it survives a power cut.
    #[default]
    PowerLoss,
    /// It survives the end of every process, but the last commits may be lost in a power cut.
    /// Never corrupts.
    ProcessCrash,
}

impl Dialect {
    /// Begins a transaction that will write. On SQLite it takes the write lock at once: one that
    /// reads first and then wants to write could find the file changed and fail.
    pub(super) fn begin_write(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN",
        }
    }

    /// Begins a transaction whose statements all see the same moment.
    pub(super) fn begin_snapshot(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN DEFERRED",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// Run on every new connection. Times are milliseconds.
    pub(super) fn session(self, durability: Durability) -> &'static [&'static str] {
        const FULL: &[&str] = &[
            "PRAGMA busy_timeout = 5000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "PRAGMA foreign_keys = ON",
        ];
        const NORMAL: &[&str] = &[
            "PRAGMA busy_timeout = 5000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
            "PRAGMA foreign_keys = ON",
        ];
        const POSTGRES: &[&str] = &[
            "SET statement_timeout = 10000",
            "SET lock_timeout = 5000",
            "SET idle_in_transaction_session_timeout = 30000",
        ];
        match (self, durability) {
            (Self::Sqlite, Durability::PowerLoss) => FULL,
            (Self::Sqlite, Durability::ProcessCrash) => NORMAL,
            (Self::Postgres, Durability::PowerLoss | Durability::ProcessCrash) => POSTGRES,
        }
    }

    /// One row, one column: microseconds since 1970 by the database's clock.
    pub(super) fn now(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000 AS now_us"
            }
            Self::Postgres => {
                "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now_us"
            }
        }
    }
}
