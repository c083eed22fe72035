//! One queue in the database, to claim from and to settle in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{Claim, EventEnd, EventSource, QueueError, QueueName, Receipt};
use hanshu_core::{Attempt, NodeId, Timestamp};

use super::commands::QueueCommand;
use super::group_commit::GROUP_MAX;
use super::transactions::{ClaimCommand, SettleOperation};
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

    async fn extend(&self, receipt: &Receipt, hold: Duration) -> Result<(), QueueError> {
        let until_us = stored::hold_end(self.writers.clock().now(), hold);
        self.writers.settle(receipt, SettleOperation::Extend { until_us }).await
    }

    async fn end(
        &self,
        receipt: &Receipt,
        attempt: Option<Attempt>,
        ended: EventEnd,
    ) -> Result<(), QueueError> {
        let end = StoredEventEnd::of(&ended)?;
        let line = stored::finished_line(attempt.as_ref())?;
        let now = self.writers.clock().now();
        self.writers.settle(receipt, SettleOperation::End { end, now, line }).await
    }

    async fn retry(
        &self,
        receipt: &Receipt,
        due: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), QueueError> {
        let line = stored::finished_line(attempt.as_ref())?;
        let action = SettleOperation::Retry { queue: self.queue.clone(), due, line };
        self.writers.settle(receipt, action).await
    }
}
