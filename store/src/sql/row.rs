//! Converts TEXT and BIGINT columns to domain types and back. A row that cannot be read is an
//! internal error that names its table and key.

use std::fmt::Display;
use std::str::FromStr;

use hanshu_core::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::DatabaseError;

/// A struct with a row's columns as its fields, by their names. sqlx's own derive comes with its checker
/// of queries, for which both databases would be compiled a second time, to run inside of the compiler.
macro_rules! row {
    (
        $(#[$meta:meta])*
        $visible:vis struct $name:ident { $($field_visible:vis $field:ident: $type:ty,)* }
    ) => {
        $(#[$meta])*
        $visible struct $name { $($field_visible $field: $type,)* }

        impl<'r> sqlx::FromRow<'r, sqlx::any::AnyRow> for $name {
            fn from_row(row: &'r sqlx::any::AnyRow) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: sqlx::Row::try_get(row, stringify!($field))?,)* })
            }
        }
    };
}

/// Names the row that is being read, for errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowContext<'a> {
    table: &'static str,
    key: &'a str,
}

impl<'a> RowContext<'a> {
    pub(crate) fn new(table: &'static str, key: &'a str) -> Self {
        Self { table, key }
    }

    /// The row cannot be read or written.
    pub(crate) fn bad(self, reason: impl Display) -> DatabaseError {
        DatabaseError::Row { table: self.table, key: self.key.into(), reason: reason.to_string() }
    }

    /// Parses an identifier or a name.
    pub(crate) fn parse<T>(self, text: &str) -> Result<T, DatabaseError>
    where
        T: FromStr,
        T::Err: Display,
    {
        text.parse().map_err(|error| self.bad(error))
    }

    /// An identifier or name that may be absent.
    pub(crate) fn parse_option<T>(self, text: Option<&str>) -> Result<Option<T>, DatabaseError>
    where
        T: FromStr,
        T::Err: Display,
    {
        text.map(|text| self.parse(text)).transpose()
    }

    /// Parses a JSON column.
    pub(crate) fn json<T: DeserializeOwned>(self, text: &str) -> Result<T, DatabaseError> {
        serde_json::from_str(text).map_err(|error| self.bad(error))
    }

    /// A time that is stored in microseconds.
    pub(crate) fn time(self, micros: i64) -> Result<Timestamp, DatabaseError> {
        Timestamp::from_microsecond(micros).map_err(|error| self.bad(error))
    }

    /// A number of a narrower type.
    pub(crate) fn number<T>(self, value: i64) -> Result<T, DatabaseError>
    where
        T: TryFrom<i64>,
        T::Error: Display,
    {
        T::try_from(value).map_err(|error| self.bad(error))
    }
}

/// A time as it is kept: microseconds since 1970, so the finer part is cut off.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// A value as JSON text.
pub(crate) fn to_json<T: Serialize>(
    table: &'static str,
    value: &T,
) -> Result<String, DatabaseError> {
    serde_json::to_string(value).map_err(|error| DatabaseError::Row {
        table,
        key: "(new)".into(),
        reason: error.to_string(),
    })
}
