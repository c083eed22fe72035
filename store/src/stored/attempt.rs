//! The attempts of a queued event: lines of JSON that are only ever appended, so that a claim of
//! many events and a settle are one statement each.
//!
//! `attempts` has the lines of attempts that are over (a node that died leaves one without an end),
//! `begun` the line of the one that runs. An attempt's number is that of its line.

use std::borrow::Cow;

use hanshu_core::ports::QueueError;
use hanshu_core::{Attempt, NodeId, StatusCode, Timestamp};
use serde::{Deserialize, Serialize};

use super::version::FormatVersion;

/// An [`Attempt`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredAttempt<'a> {
    #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
    format: FormatVersion<1>,
    /// Not read: the line's number counts.
    number: u32,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    status: Option<StatusCode>,
    node: Option<Cow<'a, NodeId>>,
    cold: bool,
}

/// The line of an attempt that begins now.
pub(crate) fn begun_line(now: Timestamp, node: &NodeId) -> Result<String, QueueError> {
    to_line(&StoredAttempt {
        format: FormatVersion::newest(),
        number: 0,
        started_at: now,
        ended_at: None,
        status: None,
        node: Some(Cow::Borrowed(node)),
        cold: false,
    })
}

/// The line of an attempt that is over; empty if there was none.
pub(crate) fn finished_line(attempt: Option<&Attempt>) -> Result<String, QueueError> {
    attempt.map_or_else(|| Ok(String::new()), |attempt| to_line(&attempt.into()))
}

/// The attempts that are over, then the one that runs.
pub(crate) fn attempts(finished: &str, begun: &str) -> serde_json::Result<Vec<Attempt>> {
    let numbered = (1..).zip(finished.lines().chain(begun.lines()));
    let read = numbered.map(|(number, line)| {
        let stored: StoredAttempt<'_> = serde_json::from_str(line)?;
        Ok(Attempt { number, ..stored.into() })
    });
    read.collect()
}

fn to_line(attempt: &StoredAttempt<'_>) -> Result<String, QueueError> {
    let mut text = serde_json::to_string(attempt).map_err(|error| {
        QueueError::Internal(format!("an attempt cannot be written: {error}").into())
    })?;
    text.push('\n');
    Ok(text)
}

impl<'a> From<&'a Attempt> for StoredAttempt<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        let Attempt { number, started_at, ended_at, status, node, cold } = attempt;
        Self {
            format: FormatVersion::newest(),
            number: *number,
            started_at: *started_at,
            ended_at: *ended_at,
            status: *status,
            node: node.as_ref().map(Cow::Borrowed),
            cold: *cold,
        }
    }
}

impl From<StoredAttempt<'_>> for Attempt {
    fn from(stored: StoredAttempt<'_>) -> Self {
        Self {
            number: stored.number,
            started_at: stored.started_at,
            ended_at: stored.ended_at,
            status: stored.status,
            node: stored.node.map(Cow::into_owned),
            cold: stored.cold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINISHED: &str = concat!(
        r#"{"number":1,"started_at":"2026-11-26T12:00:00Z","ended_at":"2026-11-26T12:00:01.5Z","#,
        r#""status":430,"node":"n1","cold":true}"#,
        "\n",
    );
    const BEGUN: &str = concat!(
        r#"{"number":0,"started_at":"2026-11-26T12:01:00Z","ended_at":null,"status":null,"#,
        r#""node":"n2","cold":false}"#,
        "\n",
    );

    #[test]
    fn the_first_format_is_read_and_written() {
        let attempts = attempts(FINISHED, BEGUN).unwrap();
        let [first, second] = &attempts[..] else { panic!("{attempts:?}") };
        assert_eq!((first.number, second.number), (1, 2));
        assert_eq!(finished_line(Some(first)).unwrap(), FINISHED);
        assert_eq!(begun_line(second.started_at, second.node.as_ref().unwrap()).unwrap(), BEGUN);
    }
}
