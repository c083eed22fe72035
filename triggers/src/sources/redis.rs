//! Redis streams: one consumer of one consumer group, over a connection of its own. The only file
//! that knows the Redis client.
//!
//! The delivery count that Redis keeps of each entry is the number of its attempt: it is set by
//! us, so that only the function's own failures raise it and a crash of the platform does not.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hanshu_core::RedisTrigger;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, RedisResult, Value, cmd};
use serde_json::{Map, json};
use tokio::time::Instant;

use super::consumer::{
    ConsumerIdentity, StreamBatch, StreamConsumer, StreamEntry, StreamError, StreamSource,
};
use crate::trigger_error::TriggerError;
use crate::trigger_rules::{TriggerRules, TriggerView, ViewContext};

/// A connected consumer.
struct RedisConsumer {
    connection: MultiplexedConnection,
    stream: String,
    identity: ConsumerIdentity,
    /// Entries of one read.
    batch: u32,
    /// Whether the group may hold entries for this consumer from before.
    has_pending: bool,
    /// When dead consumers were last looked for.
    reclaimed_at: Option<Instant>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than [`BLOCK`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a read waits at the server for entries.
const BLOCK: Duration = Duration::from_secs(1);
/// Time between two looks for dead consumers.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(15);
/// Entries taken over from dead consumers in one look.
const RECLAIM_MAX: usize = 1_000;
/// The dead-letter stream is trimmed to about this many entries, the oldest first.
const DEAD_LETTERS_MAX: usize = 100_000;
/// Entries of a stream per event, at most (as SCF's Kafka trigger).
const BATCH_MAX: u32 = 10_000;
const STREAM_BYTES_MAX: usize = 512;

impl TriggerRules for RedisTrigger {
    fn check(&self) -> Result<(), TriggerError> {
        let url = self.url.expose();
        if !url.starts_with("redis://") || Client::open(url).is_err() {
            let rule =
                "`redis://[user:password@]host[:port][/database]` (TLS is not supported yet)";
            // The value may contain a password and is left out of the message.
            return Err(TriggerError::field("url", "***", rule));
        }
        let stream = self.stream.as_str();
        if stream.is_empty() || STREAM_BYTES_MAX < stream.len() || stream.contains('\0') {
            let rule = "a key of 1 to 512 bytes without NUL";
            return Err(TriggerError::field("stream", stream, rule));
        }
        if !(1..=BATCH_MAX).contains(&self.batch) {
            let rule = "a number from 1 to 10000";
            return Err(TriggerError::field("batch", &self.batch.to_string(), rule));
        }
        Ok(())
    }

    fn view(&self, _: &ViewContext<'_>) -> TriggerView {
        let url = without_password(self.url.expose());
        let summary = format!("{} at {url}", self.stream);
        let fields = Map::from_iter([
            ("url".to_owned(), json!(url)),
            ("stream".to_owned(), json!(self.stream)),
            ("batch".to_owned(), json!(self.batch)),
        ]);
        TriggerView { summary, fields, next_ticks: Vec::new() }
    }
}

/// `redis://user:secret@host` → `redis://user:***@host`.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "***".into() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        None => url.to_owned(),
        Some((user, host)) => {
            let name = user.split_once(':').map_or("", |(name, _)| name);
            format!("{scheme}://{name}:***@{host}{path}")
        }
    }
}

#[async_trait]
impl StreamSource for RedisTrigger {
    async fn connect(
        &self,
        identity: &ConsumerIdentity,
    ) -> Result<Box<dyn StreamConsumer>, StreamError> {
        Ok(Box::new(RedisConsumer::connect(self, identity.clone()).await?))
    }

    fn write_record(&self, entry: &StreamEntry, json: &mut Vec<u8>) {
        json.extend_from_slice(b"{\"Redis\":{\"stream\":");
        write_text(json, &self.stream);
        json.extend_from_slice(b",\"id\":");
        write_text(json, &entry.id);
        json.extend_from_slice(b",\"fields\":{");
        for (index, (name, value)) in entry.fields.iter().enumerate() {
            if 0 < index {
                json.push(b',');
            }
            write_text(json, &String::from_utf8_lossy(name));
            json.push(b':');
            match std::str::from_utf8(value) {
                Ok(value) => write_text(json, value),
                Err(_) => {
                    json.extend_from_slice(b"{\"base64\":\"");
                    json.extend_from_slice(STANDARD.encode(value).as_bytes());
                    json.extend_from_slice(b"\"}");
                }
            }
        }
        json.extend_from_slice(b"}}}");
    }
}

fn write_text(json: &mut Vec<u8>, text: &str) {
    // Writing a text into a vector cannot fail.
    let _ = serde_json::to_writer(json, text);
}

impl RedisConsumer {
    async fn connect(trigger: &RedisTrigger, identity: ConsumerIdentity) -> RedisResult<Self> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let client = Client::open(trigger.url.expose())?;
        let mut consumer = Self {
            connection: client.get_multiplexed_async_connection_with_config(&config).await?,
            stream: trigger.stream.clone(),
            identity,
            batch: trigger.batch,
            has_pending: true,
            reclaimed_at: None,
        };
        let create: RedisResult<Value> = cmd("XGROUP")
            .arg("CREATE")
            .arg(&consumer.stream)
            .arg(&consumer.identity.group)
            .arg("0")
            .arg("MKSTREAM")
            .query_async(&mut consumer.connection)
            .await;
        match create {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(error),
            Ok(_) | Err(_) => Ok(consumer),
        }
    }

    fn command(&self, name: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(&self.stream).arg(&self.identity.group);
        command
    }

    fn claim(&self, ids: &[String]) -> Cmd {
        let mut command = self.command("XCLAIM");
        command.arg(&self.identity.consumer).arg(0).arg(ids);
        command
    }

    fn dead_letter_stream(&self) -> String {
        format!("{}:hanshu-dead", self.stream)
    }

    /// New entries; empty if none came within [`BLOCK`].
    async fn read_new(&mut self) -> RedisResult<StreamBatch> {
        let reply: Value = cmd("XREADGROUP")
            .arg("GROUP")
            .arg(&self.identity.group)
            .arg(&self.identity.consumer)
            .arg("COUNT")
            .arg(self.batch)
            .arg("BLOCK")
            .arg(u64::try_from(BLOCK.as_millis()).unwrap_or(1_000))
            .arg("STREAMS")
            .arg(&self.stream)
            .arg(">")
            .query_async(&mut self.connection)
            .await?;
        // [[stream, [entry …]]], or a map in RESP3; nil if none came.
        let of_stream = items(reply).into_iter().flat_map(items).nth(1);
        Ok(StreamBatch { entries: entries(of_stream.unwrap_or(Value::Nil)), attempt: 1 })
    }

    /// The first of the entries that this consumer holds: of a run that was cut off, or taken
    /// over. Entries at different attempts come in different batches.
    async fn read_pending(&mut self) -> RedisResult<Option<StreamBatch>> {
        let pending: Value = self
            .command("XPENDING")
            .arg("-")
            .arg("+")
            .arg(self.batch)
            .arg(&self.identity.consumer)
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
        // Entries that were deleted from the stream meanwhile have no content any more.
        let deleted = ids.iter().filter(|id| entries.iter().all(|entry| entry.id != **id));
        let deleted: Vec<_> = deleted.cloned().collect();
        if !deleted.is_empty() {
            self.acknowledge(&deleted).await?;
        }
        Ok(Some(StreamBatch { entries, attempt: attempt.max(1) }))
    }

    /// Takes over what other consumers have not renewed for `idle_min`; returns how many entries.
    async fn reclaim(&mut self, idle_min: Duration) -> RedisResult<usize> {
        let mut cursor = "0-0".to_owned();
        let mut taken = 0;
        while taken < RECLAIM_MAX {
            let reply: Value = self
                .command("XAUTOCLAIM")
                .arg(&self.identity.consumer)
                .arg(u64::try_from(idle_min.as_millis()).unwrap_or(u64::MAX))
                .arg(&cursor)
                .arg("COUNT")
                .arg(100)
                .arg("JUSTID")
                .query_async(&mut self.connection)
                .await?;
            let mut parts = items(reply).into_iter();
            cursor = parts.next().as_ref().and_then(text).unwrap_or_else(|| "0-0".into());
            taken += parts.next().map_or(0, |ids| items(ids).len());
            if cursor == "0-0" {
                break;
            }
        }
        Ok(taken)
    }

    async fn acknowledge(&mut self, ids: &[String]) -> RedisResult<()> {
        self.command("XACK").arg(ids).query_async(&mut self.connection).await
    }
}

#[async_trait]
impl StreamConsumer for RedisConsumer {
    async fn read(&mut self, dead_after: Duration) -> Result<StreamBatch, StreamError> {
        if self.reclaimed_at.is_none_or(|at| RECLAIM_INTERVAL <= at.elapsed()) {
            self.has_pending |= 0 < self.reclaim(dead_after).await?;
            self.reclaimed_at = Some(Instant::now());
        }
        if self.has_pending {
            match self.read_pending().await? {
                Some(batch) => return Ok(batch),
                None => self.has_pending = false,
            }
        }
        Ok(self.read_new().await?)
    }

    fn redeliver(&mut self) {
        self.has_pending = true;
    }

    async fn renew(&mut self, ids: &[String]) -> Result<bool, StreamError> {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(true) };
        let held: Value = self
            .command("XPENDING")
            .arg(first)
            .arg(last)
            .arg(ids.len())
            .arg(&self.identity.consumer)
            .query_async(&mut self.connection)
            .await?;
        if items(held).len() < ids.len() {
            return Ok(false);
        }
        let _: Value = self.claim(ids).arg("JUSTID").query_async(&mut self.connection).await?;
        Ok(true)
    }

    async fn ack(&mut self, ids: &[String]) -> Result<(), StreamError> {
        Ok(self.acknowledge(ids).await?)
    }

    async fn set_attempt(&mut self, ids: &[String], attempt: u32) -> Result<(), StreamError> {
        let mut command = self.claim(ids);
        command.arg("RETRYCOUNT").arg(attempt).arg("JUSTID");
        let _: Value = command.query_async(&mut self.connection).await?;
        Ok(())
    }

    async fn dead_letter(
        &mut self,
        entries: &[StreamEntry],
        reason: &str,
    ) -> Result<(), StreamError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for entry in entries {
            let mut copy = cmd("XADD");
            copy.arg(self.dead_letter_stream()).arg("MAXLEN").arg("~").arg(DEAD_LETTERS_MAX);
            copy.arg("*");
            for (name, value) in &entry.fields {
                copy.arg(name.as_slice()).arg(value.as_slice());
            }
            copy.arg("hanshu-id").arg(&entry.id);
            copy.arg("hanshu-group").arg(&self.identity.group);
            copy.arg("hanshu-reason").arg(reason);
            pipe.add_command(copy).ignore();
        }
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        let mut done = self.command("XACK");
        done.arg(ids);
        pipe.add_command(done).ignore();
        Ok(pipe.query_async(&mut self.connection).await?)
    }

    async fn dead_lettered(&mut self) -> Result<u64, StreamError> {
        let length = cmd("XLEN").arg(self.dead_letter_stream()).to_owned();
        Ok(length.query_async(&mut self.connection).await?)
    }
}

impl From<RedisError> for StreamError {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            return Self("Redis did not answer in time".into());
        }
        if error.is_io_error() {
            return Self(format!("Redis cannot be reached: {error}"));
        }
        Self(format!("Redis refused: {error}"))
    }
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

#[cfg(test)]
mod tests;
