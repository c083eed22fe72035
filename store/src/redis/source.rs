//! One of the queues in Redis, to claim from.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{Claim, EventEnd, EventSource, QueueError, QueueName, Receipt};
use hanshu_core::{Attempt, NodeId, RequestId, Timestamp};

use super::context::RedisContext;
use super::ended_stream::EndedStream;
use super::replies::ClaimedEventReply;
use crate::claim_token::ClaimToken;
use crate::stored::{self, StoredEventEnd};

/// One queue in Redis.
#[derive(Debug)]
pub(super) struct RedisEventSource {
    context: Arc<RedisContext>,
    queue: QueueName,
}

impl RedisEventSource {
    /// Events of one claim, so that a script is short.
    const CLAIM_MAX: usize = 256;

    pub(super) fn new(context: Arc<RedisContext>, queue: QueueName) -> Self {
        Self { context, queue }
    }
}

#[async_trait]
impl EventSource for RedisEventSource {
    async fn claim(
        &self,
        max: usize,
        hold: Duration,
        node: &NodeId,
    ) -> Result<Vec<Claim>, QueueError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let RedisContext { connection, scripts, keys, clock, .. } = &*self.context;
        let now = clock.now();
        let mut claim = scripts.claim.prepare_invoke();
        claim.key(keys.queues()).key(keys.waiting(&self.queue));
        claim.key(keys.held(&self.queue)).key(keys.retried(&self.queue));
        claim.arg(self.queue.to_string()).arg(keys.events()).arg(now.as_microsecond());
        claim.arg(stored::hold_end(now, hold)).arg(max.min(Self::CLAIM_MAX));
        claim.arg(stored::begun_line(now, node)?);
        let events: Vec<ClaimedEventReply> = connection.run(&claim).await?;
        events.into_iter().map(|event| event.into_stored().into_claim(&self.queue)).collect()
    }

    async fn extend(&self, receipt: &Receipt, hold: Duration) -> Result<(), QueueError> {
        let RedisContext { connection, scripts, keys, clock, .. } = &*self.context;
        let mut extend = scripts.extend.prepare_invoke();
        extend.key(keys.queues()).key(keys.waiting(&self.queue));
        let ClaimToken { request_id, claim } = ClaimToken::of(receipt)?;
        extend.key(keys.held(&self.queue)).key(keys.event(request_id));
        extend.arg(self.queue.to_string()).arg(claim);
        extend.arg(stored::hold_end(clock.now(), hold));
        check_settled(connection.run(&extend).await?, request_id)
    }

    async fn end(
        &self,
        receipt: &Receipt,
        attempt: Option<Attempt>,
        ended: EventEnd,
    ) -> Result<(), QueueError> {
        let RedisContext { connection, scripts, keys, clock, keep, .. } = &*self.context;
        let end = StoredEventEnd::of(&ended)?;
        let (field, text) = match (&end.result, &end.error) {
            (Some(result), _) => ("result", result.as_str()),
            (None, Some(error)) => ("error", error.as_str()),
            (None, None) => ("", ""),
        };
        let mut script = scripts.end.prepare_invoke();
        script.key(keys.queues()).key(keys.waiting(&self.queue)).key(keys.held(&self.queue));
        let ClaimToken { request_id, claim } = ClaimToken::of(receipt)?;
        script.key(keys.event(request_id)).key(keys.ended()).key(keys.dead_lettered());
        script.key(keys.pins()).key(keys.ended_stream());
        script.arg(self.queue.to_string()).arg(request_id.to_string()).arg(claim);
        script.arg(stored::finished_line(attempt.as_ref())?).arg(end.state.as_str());
        script.arg(clock.now().as_microsecond()).arg(field).arg(text);
        script.arg(i64::try_from(keep.as_millis()).unwrap_or(i64::from(u32::MAX)));
        script.arg(EndedStream::UNREAD_MAX);
        check_settled(connection.run(&script).await?, request_id)
    }

    async fn retry(
        &self,
        receipt: &Receipt,
        due: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), QueueError> {
        let RedisContext { connection, scripts, keys, signal, .. } = &*self.context;
        let mut retry = scripts.retry.prepare_invoke();
        retry.key(keys.queues()).key(keys.waiting(&self.queue)).key(keys.held(&self.queue));
        let ClaimToken { request_id, claim } = ClaimToken::of(receipt)?;
        retry.key(keys.event(request_id)).key(keys.retried(&self.queue));
        retry.arg(self.queue.to_string()).arg(claim).arg(due.as_microsecond());
        retry.arg(stored::finished_line(attempt.as_ref())?);
        check_settled(connection.run(&retry).await?, request_id)?;
        signal.notify();
        Ok(())
    }
}

/// Scripts answer 0 where the claim is not the newest, or the event ended.
fn check_settled(answer: i64, request_id: RequestId) -> Result<(), QueueError> {
    if answer == 1 { Ok(()) } else { Err(QueueError::Stale(request_id.to_string())) }
}
