//! One queue in the database, to claim from and to settle in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{
    Claim, EventEnd, EventSource, HoldStatus, QueueError, QueueName, Receipt, RetryOutcome,
};
use hanshu_core::{Attempt, NodeId, Timestamp};

use super::commands::QueueCommand;
use super::group_commit::GROUP_MAX;
use super::transactions::{ClaimCommand, SettleOperation, SettleOutcome};
use super::writers::QueueWriters;
use crate::stored::{self, StoredEventEnd};

/// One queue in the database.
#[derive(Debug)]
pub(super) struct SqlEventSource {
    writers: Arc<QueueWriters>,
    queue: QueueName,
}

impl SqlEventSource {
    pub(super) fn new(writers: Arc<QueueWriters>, queue: QueueName) -> Self {
        Self { writers, queue }
    }

    /// Ends the event; `line` is the finished attempt, empty if there was none.
    async fn write_end(
        &self,
        receipt: &Receipt,
        end: StoredEventEnd,
        line: String,
    ) -> Result<(), QueueError> {
        let now = self.writers.clock().now();
        self.writers.settle(receipt, SettleOperation::End { end, now, line }).await.map(drop)
    }
}

#[async_trait]
impl EventSource for SqlEventSource {
    async fn claim(
        &self,
        max: usize,
        hold: Duration,
        node: &NodeId,
    ) -> Result<Vec<Claim>, QueueError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let now = self.writers.clock().now();
        let max = max.min(GROUP_MAX);
        let claim = ClaimCommand { queue: self.queue.clone(), max, hold, node: node.clone(), now };
        self.writers.run(claim, QueueCommand::Claim).await
    }

    async fn extend(&self, receipt: &Receipt, hold: Duration) -> Result<HoldStatus, QueueError> {
        let until_us = stored::hold_end(self.writers.clock().now(), hold);
        Ok(match self.writers.settle(receipt, SettleOperation::Extend { until_us }).await? {
            SettleOutcome::Settled => HoldStatus::Extended,
            SettleOutcome::CancelRequested => HoldStatus::CancelRequested,
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
        self.write_end(receipt, end, line).await
    }

    async fn retry(
        &self,
        receipt: &Receipt,
        due: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<RetryOutcome, QueueError> {
        let line = stored::finished_line(attempt.as_ref())?;
        let (queue, again) = (self.queue.clone(), line.clone());
        let action = SettleOperation::Retry { queue, due, line: again };
        match self.writers.settle(receipt, action).await? {
            SettleOutcome::Settled => Ok(RetryOutcome::Waiting),
            // In a transaction of its own, since one that ends events takes another lock first. If
            // the process dies in between, whoever claims the event next ends it.
            SettleOutcome::CancelRequested => {
                self.write_end(receipt, StoredEventEnd::cancelled(), line).await?;
                Ok(RetryOutcome::Cancelled)
            }
        }
    }
}
