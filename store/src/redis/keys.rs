//! The name of every key that the queue has in Redis.
//!
//! All begin with `{hanshu:1}:`. The braces are a hash tag: every key is in one slot, so that one
//! script may touch several on a Redis cluster. The `1` is the version of this layout.

use hanshu_core::RequestId;
use hanshu_core::ports::QueueName;

/// Makes the names of keys.
#[derive(Clone, Debug)]
pub(super) struct RedisKeys {
    tag: String,
}

impl RedisKeys {
    /// The layout's version: a program of another version does not see these keys.
    const VERSION: u32 = 1;

    /// The keys of the installation `name`.
    pub(super) fn new(name: &str) -> Self {
        Self { tag: format!("{{{name}:{}}}", Self::VERSION) }
    }

    /// Sorted set: queue → when it next has something to claim (µs).
    pub(super) fn queues(&self) -> String {
        format!("{}:queues", self.tag)
    }

    /// Sorted set: a queue's waiting events → when each is due (µs). A member is the event's
    /// number of acceptance in 16 hexadecimal digits, a colon, its request id.
    pub(super) fn waiting(&self, queue: &QueueName) -> String {
        format!("{}:waiting:{queue}", self.tag)
    }

    /// Sorted set: a queue's claimed events → when each hold ends (µs). Members as in `waiting`.
    pub(super) fn held(&self, queue: &QueueName) -> String {
        format!("{}:held:{queue}", self.tag)
    }

    /// Sorted set: those of `waiting` that were put back → when each was accepted (µs).
    pub(super) fn retried(&self, queue: &QueueName) -> String {
        format!("{}:retried:{queue}", self.tag)
    }

    /// Hash: one event, its payload and its state.
    pub(super) fn event(&self, request_id: RequestId) -> String {
        format!("{}{request_id}", self.events())
    }

    /// What [`RedisKeys::event`] begins with, for scripts that learn of events as they run.
    pub(super) fn events(&self) -> String {
        format!("{}:event:", self.tag)
    }

    /// The counter that numbers accepted events.
    pub(super) fn seq(&self) -> String {
        format!("{}:seq", self.tag)
    }

    /// Hash: timer → its high-water mark (µs).
    pub(super) fn ticks(&self) -> String {
        format!("{}:ticks", self.tag)
    }

    /// Hash: revision → how many events that have not ended name it.
    pub(super) fn pins(&self) -> String {
        format!("{}:pins", self.tag)
    }

    /// Sorted set: ended events → when each ended (µs).
    pub(super) fn ended(&self) -> String {
        format!("{}:ended", self.tag)
    }

    /// Stream: ends of events, until they are moved into the database.
    pub(super) fn ended_stream(&self) -> String {
        format!("{}:ended-stream", self.tag)
    }

    /// Hash: queue → how many of its events ended in failure or expiry and are kept.
    pub(super) fn dead_lettered(&self) -> String {
        format!("{}:buried", self.tag)
    }
}
