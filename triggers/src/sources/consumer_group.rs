//! One consumer of one consumer group of one Redis stream, over a connection of its own.
//!
//! The delivery count that Redis keeps of each entry is the number of the attempt that runs, or
//! will run next: only the function's own failures raise it, a crash of ours does not.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, Value, cmd};

use super::batch_event::StreamEntry;

/// What is read and in whose name.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerGroupOptions {
    pub(crate) stream: String,
    pub(crate) group: String,
    pub(crate) consumer: String,
    /// Entries of one read.
    pub(crate) batch: u32,
}

/// A connected consumer.
pub(crate) struct ConsumerGroup {
    connection: MultiplexedConnection,
    options: ConsumerGroupOptions,
}

/// Entries that are ours until they are acknowledged, in the stream's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamBatch {
    pub(crate) entries: Vec<StreamEntry>,
    /// The attempt that is to run, from 1.
    pub(crate) attempt: u32,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than [`BLOCK`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits at the server for entries.
const BLOCK: Duration = Duration::from_secs(1);
/// Entries taken over from dead consumers at once.
const RECLAIM_MAX: usize = 1_000;
/// The dead stream is cut to about so many entries, the oldest first.
const DEAD_MAX: usize = 100_000;

impl ConsumerGroup {
    /// Connects, and makes stream and group where they are missing. A new group starts at the
    /// stream's beginning, so that what was written before the trigger's deploy is not lost.
    pub(crate) async fn connect(url: &str, options: ConsumerGroupOptions) -> RedisResult<Self> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let client = Client::open(url)?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut group = Self { connection, options };
        let create: RedisResult<Value> = cmd("XGROUP")
            .arg("CREATE")
            .arg(&group.options.stream)
            .arg(&group.options.group)
            .arg("0")
            .arg("MKSTREAM")
            .query_async(&mut group.connection)
            .await;
        match create {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            Ok(_) | Err(_) => Ok(group),
        }
    }

    fn command(&self, name: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(&self.options.stream).arg(&self.options.group);
        command
    }

    /// New entries; empty if none came within a second.
    pub(crate) async fn read(&mut self) -> RedisResult<StreamBatch> {
        let options = &self.options;
        let reply: Value = cmd("XREADGROUP")
            .arg("GROUP")
            .arg(&options.group)
            .arg(&options.consumer)
            .arg("COUNT")
            .arg(options.batch)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(1_000))
            .arg("STREAMS")
            .arg(&options.stream)
            .arg(">")
            .query_async(&mut self.connection)
            .await?;
        // [[stream, [entry …]]], or a map in RESP3; nil if none came.
        let of_stream = items(reply).into_iter().flat_map(items).nth(1);
        Ok(StreamBatch { entries: entries(of_stream.unwrap_or(Value::Nil)), attempt: 1 })
    }

    /// The first of what is ours already: of a run that was cut off, or taken over. Entries that
    /// are at different attempts come apart.
    pub(crate) async fn own(&mut self) -> RedisResult<Option<StreamBatch>> {
        let pending: Value = self
            .command("XPENDING")
            .arg("-")
            .arg("+")
            .arg(self.options.batch)
            .arg(&self.options.consumer)
            .query_async(&mut self.connection)
            .await?;
        let pending: Vec<(String, u32)> = items(pending)
            .into_iter()
            .filter_map(|row| match &items(row)[..] {
                [id, _, _, count] => Some((text(id)?, number(count)?)),
                _ => None,
            })
            .collect();
        let Some((_, attempt)) = pending.first().cloned() else { return Ok(None) };
        let same = pending.into_iter().take_while(|(_, count)| *count == attempt);
        let ids: Vec<String> = same.map(|(id, _)| id).collect();
        let claimed: Value = self
            .claim(&ids)
            .arg("RETRYCOUNT")
            .arg(attempt)
            .query_async(&mut self.connection)
            .await?;
        let entries = entries(claimed);
        // What was deleted from the stream meanwhile has no content any more.
        let gone = ids.iter().filter(|id| entries.iter().all(|entry| entry.id != **id));
        let gone: Vec<_> = gone.cloned().collect();
        if !gone.is_empty() {
            self.acknowledge(&gone).await?;
        }
        Ok(Some(StreamBatch { entries, attempt: attempt.max(1) }))
    }

    /// Takes over what other consumers have not touched for `idle_min`; returns how much.
    pub(crate) async fn reclaim(&mut self, idle_min: Duration) -> RedisResult<usize> {
        let mut cursor = "0-0".to_owned();
        let mut taken = 0;
        while taken < RECLAIM_MAX {
            let reply: Value = self
                .command("XAUTOCLAIM")
                .arg(&self.options.consumer)
                .arg(u64::try_from(idle_min.as_millis()).unwrap_or(u64::MAX))
                .arg(&cursor)
                .arg("COUNT")
                .arg(100)
                .arg("JUSTID")
                .query_async(&mut self.connection)
                .await?;
            let mut context = items(reply).into_iter();
            cursor = context.next().as_ref().and_then(text).unwrap_or_else(|| "0-0".into());
            taken += context.next().map_or(0, |ids| items(ids).len());
            if cursor == "0-0" {
                break;
            }
        }
        Ok(taken)
    }

    /// Holds the entries for longer; `false` if some are not ours any more.
    pub(crate) async fn renew(&mut self, ids: &[String]) -> RedisResult<bool> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(true) };
        let ours: Value = self
            .command("XPENDING")
            .arg(first)
            .arg(last)
            .arg(ids.len())
            .arg(&self.options.consumer)
            .query_async(&mut self.connection)
            .await?;
        if items(ours).len() < ids.len() {
            return Ok(false);
        }
        let _: Value = self.claim(ids).arg("JUSTID").query_async(&mut self.connection).await?;
        Ok(true)
    }

    /// The entries' next attempt is this one.
    pub(crate) async fn set_attempt(&mut self, ids: &[String], attempt: u32) -> RedisResult<()> {
        let mut command = self.claim(ids);
        command.arg("RETRYCOUNT").arg(attempt).arg("JUSTID");
        let _: Value = command.query_async(&mut self.connection).await?;
        Ok(())
    }

    /// The entries are done.
    pub(crate) async fn acknowledge(&mut self, ids: &[String]) -> RedisResult<()> {
        self.command("XACK").arg(ids).query_async(&mut self.connection).await
    }

    /// Copies the entries to the dead stream and acknowledges them, in one transaction.
    pub(crate) async fn dead_letter(
        &mut self,
        entries: &[StreamEntry],
        reason: &str,
    ) -> RedisResult<()> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for entry in entries {
            let mut copy = cmd("XADD");
            copy.arg(self.dead()).arg("MAXLEN").arg("~").arg(DEAD_MAX).arg("*");
            for (name, value) in &entry.fields {
                copy.arg(name.as_slice()).arg(value.as_slice());
            }
            copy.arg("hanshu-id").arg(&entry.id);
            copy.arg("hanshu-group").arg(&self.options.group);
            copy.arg("hanshu-reason").arg(reason);
            pipe.add_command(copy).ignore();
        }
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        let mut done = self.command("XACK");
        done.arg(ids);
        pipe.add_command(done).ignore();
        pipe.query_async(&mut self.connection).await
    }

    /// Entries in the dead stream.
    pub(crate) async fn dead_lettered(&mut self) -> RedisResult<u64> {
        cmd("XLEN").arg(self.dead()).query_async(&mut self.connection).await
    }

    fn dead(&self) -> String {
        format!("{}:hanshu-dead", self.options.stream)
    }

    fn claim(&self, ids: &[String]) -> Cmd {
        let mut command = self.command("XCLAIM");
        command.arg(&self.options.consumer).arg(0).arg(ids);
        command
    }
}

/// Whether a stream's address can be used: `redis://…`, without TLS.
pub(crate) fn is_url(url: &str) -> bool {
    url.starts_with("redis://") && Client::open(url).is_ok()
}

/// What went wrong, fit for `hanshu trigger list`: never an address or a password.
pub(crate) fn reason(error: &RedisError) -> String {
    if error.is_timeout() {
        return "Redis did not answer in time".into();
    }
    if error.is_io_error() {
        return format!("Redis cannot be reached: {error}");
    }
    format!("Redis refused: {error}")
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        Value::Map(pairs) => {
            pairs.into_iter().map(|(key, value)| Value::Array(vec![key, value])).collect()
        }
        _ => Vec::new(),
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes.clone()),
        Value::SimpleString(text) => Some(text.clone().into_bytes()),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    String::from_utf8(bytes(value)?).ok()
}

fn number(value: &Value) -> Option<u32> {
    match value {
        Value::Int(number) => u32::try_from(*number).ok(),
        _ => None,
    }
}

/// `[[id, [name, value, …]], …]`; entries that were deleted come without content.
fn entries(value: Value) -> Vec<StreamEntry> {
    let entry = |value: Value| match &items(value)[..] {
        [id, Value::Array(fields)] => {
            let pairs = fields.chunks_exact(2).filter_map(|pair| match pair {
                [name, value] => Some((bytes(name)?, bytes(value)?)),
                _ => None,
            });
            Some(StreamEntry { id: text(id)?, fields: pairs.collect() })
        }
        _ => None,
    };
    items(value).into_iter().filter_map(entry).collect()
}
