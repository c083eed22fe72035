//! Many rows in one parameter: a JSON array of arrays, which both databases unnest.

use hanshu_core::ErrorCause;
use hanshu_core::ports::QueueError;
use serde::Serialize;

/// The rows as JSON text.
///
/// # Errors
/// [`QueueError::Internal`]: a row cannot be written as JSON.
pub(super) fn encode<T: Serialize>(
    rows: impl IntoIterator<Item = T>,
) -> Result<String, QueueError> {
    let rows: Vec<T> = rows.into_iter().collect();
    serde_json::to_string(&rows).map_err(|error| QueueError::Internal(ErrorCause::new(error)))
}
