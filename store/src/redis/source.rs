//! One of the queues in Redis, to claim from.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{
    Claim, EventEnd, EventSource, HoldStatus, QueueError, QueueName, Receipt, RetryOutcome,
};
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

    /// Ends the event; `line` is the finished attempt, empty if there was none.
    async fn write_end(
        &self,
        token: ClaimToken,
        end: &StoredEventEnd,
        line: &str,
    ) -> Result<(), QueueError> {
        let RedisContext { connection, scripts, keys, clock, keep, .. } = &*self.context;
        let (field, text) = match (&end.result, &end.error) {
            (Some(result), _) => ("result", result.as_str()),
            (None, Some(error)) => ("error", error.as_str()),
            (None, None) => ("", ""),
        };
        let ClaimToken { request_id, claim } = token;
        let mut script = scripts.end.prepare_invoke();
        script.key(keys.queues()).key(keys.waiting(&self.queue)).key(keys.held(&self.queue));
        script.key(keys.event(request_id)).key(keys.ended()).key(keys.dead_lettered());
        script.key(keys.pins()).key(keys.ended_stream());
        script.arg(self.queue.to_string()).arg(request_id.to_string()).arg(claim);
        script.arg(line).arg(end.state.as_str());
        script.arg(clock.now().as_microsecond()).arg(field).arg(text);
        script.arg(i64::try_from(keep.as_millis()).unwrap_or(i64::from(u32::MAX)));
        script.arg(EndedStream::UNREAD_MAX);
        script_outcome(connection.run(&script).await?, request_id).map(drop)
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

    async fn extend(&self, receipt: &Receipt, hold: Duration) -> Result<HoldStatus, QueueError> {
        let RedisContext { connection, scripts, keys, clock, .. } = &*self.context;
        let mut extend = scripts.extend.prepare_invoke();
        extend.key(keys.queues()).key(keys.waiting(&self.queue));
        let ClaimToken { request_id, claim } = ClaimToken::of(receipt)?;
        extend.key(keys.held(&self.queue)).key(keys.event(request_id));
        extend.arg(self.queue.to_string()).arg(claim);
        extend.arg(stored::hold_end(clock.now(), hold));
        Ok(match script_outcome(connection.run(&extend).await?, request_id)? {
            ScriptOutcome::Settled => HoldStatus::Extended,
            ScriptOutcome::CancelRequested => HoldStatus::CancelRequested,
        })
    }

    async fn end(
        &self,
        receipt: &Receipt,
        attempt: Option<Attempt>,
        ended: EventEnd,
    ) -> Result<(), QueueError> {
        let end = StoredEventEnd::of(&ended)?;
        let line = stored::finished_line(attempt.as_ref())?;
        self.write_end(ClaimToken::of(receipt)?, &end, &line).await
    }

    async fn retry(
        &self,
        receipt: &Receipt,
        due: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<RetryOutcome, QueueError> {
        let RedisContext { connection, scripts, keys, signal, .. } = &*self.context;
        let line = stored::finished_line(attempt.as_ref())?;
        let mut retry = scripts.retry.prepare_invoke();
        retry.key(keys.queues()).key(keys.waiting(&self.queue)).key(keys.held(&self.queue));
        let token @ ClaimToken { request_id, claim } = ClaimToken::of(receipt)?;
        retry.key(keys.event(request_id)).key(keys.retried(&self.queue));
        retry.arg(self.queue.to_string()).arg(claim).arg(due.as_microsecond()).arg(&line);
        match script_outcome(connection.run(&retry).await?, request_id)? {
            ScriptOutcome::Settled => {
                signal.notify();
                Ok(RetryOutcome::Waiting)
            }
            // If the process dies in between, whoever claims the event next ends it.
            ScriptOutcome::CancelRequested => {
                self.write_end(token, &StoredEventEnd::cancelled(), &line).await?;
                Ok(RetryOutcome::Cancelled)
            }
        }
    }
}

/// What a script did to a claimed event.
enum ScriptOutcome {
    Settled,
    /// Somebody asked to cancel it. It was extended, but is not put back.
    CancelRequested,
}

/// Scripts answer 0 where the claim is not the newest, or the event ended.
fn script_outcome(answer: i64, request_id: RequestId) -> Result<ScriptOutcome, QueueError> {
    match answer {
        1 => Ok(ScriptOutcome::Settled),
        2 => Ok(ScriptOutcome::CancelRequested),
        _ => Err(QueueError::Stale(request_id.to_string())),
    }
}
