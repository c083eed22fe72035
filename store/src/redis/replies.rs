//! Redis' replies as structs, in the order in which scripts and commands return their fields. Times
//! are microseconds since 1970.

use redis::{FromRedisValue, ParsingError, Value};

use crate::stored::StoredClaim;

/// Declares a struct that is read from an array of its fields in their order; several in a row may
/// be one flat array.
macro_rules! reply {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub(super) struct $name {
            $($(#[$doc])* pub(super) $field: $type,)+
        }

        impl From<($($type,)+)> for $name {
            fn from(($($field,)+): ($($type,)+)) -> Self {
                Self { $($field,)+ }
            }
        }

        impl FromRedisValue for $name {
            fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
                <($($type,)+)>::from_redis_value(value).map(Self::from)
            }

            fn from_redis_values(values: Vec<Value>) -> Result<Vec<Self>, ParsingError> {
                let all = <($($type,)+)>::from_redis_values(values)?;
                Ok(all.into_iter().map(Self::from).collect())
            }
        }
    };
}

reply! {
    /// What `claim.lua` returns of an event.
    ClaimedEventReply {
        request_id: String,
        tries: u32,
        attempt: u32,
        payload: Vec<u8>,
        version: String,
        revision: String,
        origin: String,
        accepted_us: i64,
        expires_us: i64,
        /// When somebody asked to cancel it; empty if nobody did.
        cancel_requested: String,
    }
}

reply! {
    /// An event's state; all `None` where there is no such event.
    EventStateReply {
        queue: Option<String>,
        version: Option<String>,
        origin: Option<String>,
        state: Option<String>,
        attempts: Option<String>,
        begun: Option<String>,
        accepted_us: Option<i64>,
        ended_us: Option<i64>,
        result: Option<String>,
        error: Option<String>,
        rerun_of: Option<String>,
    }
}

reply! {
    /// A queue, and when it first has something to claim.
    ReadyQueueReply {
        queue: String,
        at_us: i64,
    }
}

reply! {
    /// What `stats.lua` returns of a queue.
    QueueStatsReply {
        waiting: u64,
        running: u64,
        /// When the oldest waiting event was accepted; empty if none waits.
        oldest_us: String,
    }
}

reply! {
    /// What became of one pushed event.
    PushReply {
        /// 0 stored, 1 a duplicate tick, 2 the queue is full.
        code: u8,
        /// Events that wait in its queue now.
        waiting: u64,
    }
}

impl ClaimedEventReply {
    pub(super) fn into_stored(self) -> StoredClaim {
        StoredClaim {
            request_id: self.request_id,
            version: self.version,
            revision: self.revision,
            origin: self.origin,
            accepted_us: self.accepted_us,
            expires_us: self.expires_us,
            attempt: self.attempt,
            tries: self.tries,
            payload: self.payload,
            cancel_requested: !self.cancel_requested.is_empty(),
        }
    }
}

impl EventStateReply {
    /// The hash's fields that make it.
    pub(super) const FIELDS: [&str; 11] = [
        "queue", "version", "origin", "state", "attempts", "begun", "accepted", "ended", "result",
        "error", "rerun_of",
    ];
}
