//! The connection to Redis, and the scripts. Every call ends: by its answer, or by its deadline.

use std::time::Duration;

use hanshu_core::ports::QueueError;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, RedisError, Script, ScriptInvocation, ServerErrorKind,
};
use tokio::time;

/// One multiplexed connection that is made anew when it breaks. While Redis is unavailable calls fail;
/// none waits for its return.
#[derive(Clone, Debug)]
pub(super) struct RedisConnection {
    connection: ConnectionManager,
    deadline: Duration,
}

/// What changes several keys at once, one file each. Sent once, then called by digest.
#[derive(Debug)]
pub(super) struct QueueScripts {
    pub(super) claim: Script,
    pub(super) extend: Script,
    pub(super) retry: Script,
    pub(super) end: Script,
    pub(super) cancel: Script,
    pub(super) stats: Script,
    pub(super) collect: Script,
}

impl Default for QueueScripts {
    fn default() -> Self {
        macro_rules! with_refresh {
            ($file:literal) => {
                Script::new(concat!(include_str!("refresh.lua"), include_str!($file)))
            };
        }
        Self {
            claim: with_refresh!("claim.lua"),
            extend: with_refresh!("extend.lua"),
            retry: with_refresh!("retry.lua"),
            end: with_refresh!("end.lua"),
            cancel: with_refresh!("cancel.lua"),
            stats: Script::new(include_str!("stats.lua")),
            collect: Script::new(include_str!("collect.lua")),
        }
    }
}

impl RedisConnection {
    /// A reconnection tries twice; the call after a failed one begins the next.
    const RECONNECTS: usize = 1;
    const RECONNECT_DELAY: Duration = Duration::from_millis(50);

    /// Connects.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`].
    pub(super) async fn connect(url: &str, deadline: Duration) -> Result<Self, QueueError> {
        let client = Client::open(url).map_err(|error| {
            QueueError::Unavailable(
                format!("the Redis URL is not valid: {}", error.category()).into(),
            )
        })?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(deadline))
            .set_response_timeout(Some(deadline))
            .set_number_of_retries(Self::RECONNECTS)
            .set_min_delay(Self::RECONNECT_DELAY)
            .set_max_delay(Self::RECONNECT_DELAY);
        let connecting = ConnectionManager::new_with_config(client, config);
        let connection = match time::timeout(deadline, connecting).await {
            Ok(connection) => connection.map_err(|error| failed(&error))?,
            Err(_) => return Err(late(deadline)),
        };
        Ok(Self { connection, deadline })
    }

    /// Runs a script.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, QueueError> {
        let mut connection = self.connection.clone();
        self.within(script.invoke_async(&mut connection)).await
    }

    /// Sends a command.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, QueueError> {
        let mut connection = self.connection.clone();
        self.within(command.query_async(&mut connection)).await
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, QueueError> {
        self.in_time(async { call.await.map_err(|error| failed(&error)) }).await
    }

    /// Waits no longer than for one answer.
    pub(super) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        time::timeout(self.deadline, call).await.unwrap_or_else(|_| Err(late(self.deadline)))
    }
}

fn late(deadline: Duration) -> QueueError {
    QueueError::Unavailable(
        format!("Redis did not answer within {} ms", deadline.as_millis()).into(),
    )
}

/// The error of a call: `Unavailable` if trying later may help, else `Internal`.
fn failed(error: &RedisError) -> QueueError {
    let is_unavailable = match error.kind() {
        ErrorKind::Io | ErrorKind::AuthenticationFailed => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
        ),
        // Codes that the client has no name for: out of memory, a disk that cannot be written,
        // a script of somebody else that runs too long, too few replicas, no password given.
        ErrorKind::Extension => matches!(
            error.code(),
            Some("OOM" | "MISCONF" | "BUSY" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS")
        ),
        _ => error.is_timeout() || error.is_connection_dropped(),
    };
    if is_unavailable {
        QueueError::Unavailable(format!("Redis: {error}").into())
    } else {
        QueueError::Internal(format!("Redis: {error}").into())
    }
}
