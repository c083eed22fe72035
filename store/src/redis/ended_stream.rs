//! Ends of events as the queue's script writes them: a Redis stream, from which they are moved
//! into the database.

use std::sync::Arc;

use hanshu_core::ports::QueueError;
use redis::streams::{StreamId, StreamRangeReply};
use tracing::error;

use super::context::RedisContext;
use crate::sql::ForeignEnd;
use crate::stored::unreadable;

/// The stream of ends in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EndedStream {
    pub(super) context: Arc<RedisContext>,
}

/// Ends as they stand in the stream, and the places of all that was read, unreadable ones too.
#[derive(Debug)]
pub(crate) struct StreamedEnds {
    pub(crate) ends: Vec<ForeignEnd>,
    pub(crate) places: Vec<String>,
}

impl EndedStream {
    /// Ends that are kept until they are moved, about; beyond it the oldest go. Fewer than in the
    /// database: Redis has them, and their inputs, in memory.
    pub(super) const UNREAD_MAX: usize = 100_000;

    /// The first ends of the stream, at most `max`.
    pub(crate) async fn read(&self, max: usize) -> Result<StreamedEnds, QueueError> {
        let RedisContext { connection, keys, .. } = &*self.context;
        let mut range = redis::cmd("XRANGE");
        range.arg(keys.ended_stream()).arg("-").arg("+").arg("COUNT").arg(max);
        let reply: StreamRangeReply = connection.query(&range).await?;
        let mut taken = StreamedEnds { ends: Vec::new(), places: Vec::new() };
        for entry in reply.ids {
            match to_end(&entry) {
                Ok(end) => taken.ends.push(end),
                // It would keep every later one from its readers.
                Err(error) => error!(%error, "An ended event is passed over"),
            }
            taken.places.push(entry.id);
        }
        Ok(taken)
    }

    /// Removes what was read and is kept elsewhere now.
    pub(crate) async fn remove(&self, taken: StreamedEnds) -> Result<(), QueueError> {
        let RedisContext { connection, keys, .. } = &*self.context;
        let mut delete = redis::cmd("XDEL");
        delete.arg(keys.ended_stream()).arg(&taken.places);
        let _: u64 = connection.query(&delete).await?;
        Ok(())
    }
}

fn to_end(entry: &StreamId) -> Result<ForeignEnd, QueueError> {
    let missing = |field: &str| unreadable(&entry.id, format!("`{field}` is missing"));
    let text = |field: &str| entry.get::<String>(field).ok_or_else(|| missing(field));
    let number = |field: &str| entry.get::<i64>(field).ok_or_else(|| missing(field));
    let optional = |field: &str| entry.get::<String>(field).filter(|text| !text.is_empty());
    Ok(ForeignEnd {
        request_id: text("id")?,
        queue: text("queue")?,
        version: text("version")?,
        revision: text("revision")?,
        origin: text("origin")?,
        accepted_us: number("accepted")?,
        ended_us: number("ended")?,
        state: text("state")?,
        attempts: text("attempts")?,
        error: optional("error"),
        rerun_of: optional("rerun_of"),
        payload: entry.get("payload").ok_or_else(|| missing("payload"))?,
    })
}
