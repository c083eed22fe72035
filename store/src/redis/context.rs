//! What the queue and its sources share: the connection, the scripts, the keys.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::Clock;

use super::connection::{QueueScripts, RedisConnection};
use super::keys::RedisKeys;
use super::push_batches::PushSender;
use crate::ready_signal::ReadySignal;

/// What the queue and its sources share.
#[derive(Debug)]
pub(super) struct RedisContext {
    pub(super) connection: RedisConnection,
    pub(super) scripts: QueueScripts,
    pub(super) keys: RedisKeys,
    pub(super) clock: Arc<dyn Clock>,
    /// How long an ended event is kept if it is not collected.
    pub(super) keep: Duration,
    /// Notified when a queue may have become ready.
    pub(super) signal: Arc<ReadySignal>,
    pub(super) pushes: PushSender,
}
