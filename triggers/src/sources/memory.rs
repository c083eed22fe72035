//! A stream in memory: a broker for the tests of everything that is the same for all brokers, and
//! the proof that a broker is one file and one row.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::{TriggerConfig, TriggerKind, TriggerProfile, decode_config};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::consumer::{
    ConsumerIdentity, StreamBatch, StreamConsumer, StreamEntry, StreamError, StreamSource,
};
use crate::trigger_error::TriggerError;
use crate::trigger_rules::{TriggerRules, TriggerView, ViewContext};

/// The settings of a trigger that reads a [`MemoryStream`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MemoryTrigger {
    pub(crate) stream: String,
    pub(crate) batch: usize,
}

static PROFILE: TriggerProfile = TriggerProfile {
    name: "memory",
    origin_number: 255,
    is_stream: true,
    description: "Feeds batches of a stream in memory to the function.",
    fields: &[],
    decode: decode_config::<MemoryTrigger>,
};

impl TriggerConfig for MemoryTrigger {
    const KIND: TriggerKind = TriggerKind::of(&PROFILE);
}

impl TriggerRules for MemoryTrigger {
    fn check(&self) -> Result<(), TriggerError> {
        Ok(())
    }

    fn view(&self, _: &ViewContext<'_>) -> TriggerView {
        TriggerView { summary: self.stream.clone(), ..TriggerView::default() }
    }
}

/// A stream with one group, in the memory of the test.
#[derive(Default)]
pub(crate) struct MemoryStream {
    state: Mutex<MemoryStreamState>,
    added: Notify,
}

#[derive(Default)]
struct MemoryStreamState {
    entries: Vec<StreamEntry>,
    /// How many of the entries were delivered.
    delivered: usize,
    held: BTreeMap<String, HeldEntry>,
    acknowledged: Vec<String>,
    dead_letters: Vec<(String, String)>,
    /// While set, every call fails with it.
    unavailable: Option<String>,
    faults: CallFaults,
}

#[derive(Clone)]
struct HeldEntry {
    entry: StreamEntry,
    consumer: String,
    attempt: u32,
    renewed_at: Instant,
}

/// Random faults of calls.
#[derive(Default)]
struct CallFaults {
    seed: u64,
    /// How many of a hundred calls fail.
    percent: u64,
}

/// When a call fails.
#[derive(Clone, Copy, PartialEq)]
enum CallFault {
    None,
    /// Nothing is done.
    Before,
    /// It is done, and reported as failed.
    After,
    /// Nothing is done, and the failure is reported late.
    Late,
}

/// What a broker's client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const READ_WAIT: Duration = Duration::from_secs(1);

static STREAMS: LazyLock<Mutex<HashMap<String, Arc<MemoryStream>>>> = LazyLock::new(Mutex::default);

impl MemoryStream {
    /// The stream of that name, made at the first call.
    pub(crate) fn named(name: &str) -> Arc<Self> {
        STREAMS.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }

    pub(crate) fn add(&self, fields: Vec<(Vec<u8>, Vec<u8>)>) {
        let mut state = self.lock();
        let id = format!("{:06}", state.entries.len());
        state.entries.push(StreamEntry { id, fields });
        drop(state);
        self.added.notify_waiters();
    }

    pub(crate) fn set_unavailable(&self, reason: Option<&str>) {
        self.lock().unavailable = reason.map(Into::into);
    }

    /// From now on so many of a hundred calls fail.
    pub(crate) fn set_faults(&self, seed: u64, percent: u64) {
        self.lock().faults = CallFaults { seed: seed | 1, percent };
    }

    /// The numbers of entries that are delivered and neither acknowledged nor dead-lettered.
    pub(crate) fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// The ids of acknowledged entries, dead-lettered ones included, in that order.
    pub(crate) fn acknowledged(&self) -> Vec<String> {
        self.lock().acknowledged.clone()
    }

    /// Ids and reasons.
    pub(crate) fn dead_letters(&self) -> Vec<(String, String)> {
        self.lock().dead_letters.clone()
    }

    fn lock(&self) -> MutexGuard<'_, MemoryStreamState> {
        self.state.lock().unwrap()
    }

    /// A call of the broker, with its faults.
    async fn call<R>(
        &self,
        act: impl FnOnce(&mut MemoryStreamState) -> R,
    ) -> Result<R, StreamError> {
        let fault = self.lock().next_fault()?;
        if fault == CallFault::Late {
            sleep(ANSWER_TIMEOUT).await;
        }
        match fault {
            CallFault::Before | CallFault::Late => Err(StreamError("a fault on purpose".into())),
            CallFault::None => Ok(act(&mut self.lock())),
            CallFault::After => {
                act(&mut self.lock());
                Err(StreamError("a fault on purpose".into()))
            }
        }
    }
}

impl MemoryStreamState {
    fn next_fault(&mut self) -> Result<CallFault, StreamError> {
        if let Some(reason) = &self.unavailable {
            return Err(StreamError(reason.clone()));
        }
        if self.faults.percent <= self.faults.number(100) {
            return Ok(CallFault::None);
        }
        Ok(match self.faults.number(3) {
            0 => CallFault::Before,
            1 => CallFault::After,
            _ => CallFault::Late,
        })
    }

    fn hold(&mut self, entry: StreamEntry, consumer: &str) {
        let (renewed_at, consumer) = (Instant::now(), consumer.to_owned());
        let held = HeldEntry { entry: entry.clone(), consumer, attempt: 1, renewed_at };
        self.held.insert(entry.id, held);
    }

    fn held_by<'a>(&'a self, consumer: &'a str) -> impl Iterator<Item = &'a HeldEntry> {
        self.held.values().filter(move |held| held.consumer == consumer)
    }

    fn acknowledge(&mut self, ids: &[String]) {
        for id in ids {
            if self.held.remove(id).is_some() {
                self.acknowledged.push(id.clone());
            }
        }
    }
}

impl CallFaults {
    /// A number under `below`.
    fn number(&mut self, below: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 16) % below
    }
}

#[async_trait]
impl StreamSource for MemoryTrigger {
    async fn connect(
        &self,
        identity: &ConsumerIdentity,
    ) -> Result<Box<dyn StreamConsumer>, StreamError> {
        let stream = MemoryStream::named(&self.stream);
        stream.call(|_| ()).await?;
        let consumer = identity.consumer.clone();
        Ok(Box::new(MemoryConsumer { stream, consumer, batch: self.batch, has_pending: true }))
    }

    fn write_record(&self, entry: &StreamEntry, json: &mut Vec<u8>) {
        json.extend_from_slice(entry.id.trim_start_matches('0').as_bytes());
        if entry.id.bytes().all(|digit| digit == b'0') {
            json.push(b'0');
        }
    }
}

struct MemoryConsumer {
    stream: Arc<MemoryStream>,
    consumer: String,
    batch: usize,
    has_pending: bool,
}

impl MemoryConsumer {
    /// What this consumer holds, up to the first entry at another attempt.
    fn pending(&self, state: &MemoryStreamState) -> Option<StreamBatch> {
        let attempt = state.held_by(&self.consumer).next()?.attempt;
        let same = state.held_by(&self.consumer).take_while(|held| held.attempt == attempt);
        let entries = same.take(self.batch).map(|held| held.entry.clone()).collect();
        Some(StreamBatch { entries, attempt })
    }

    fn take_over(&self, state: &mut MemoryStreamState, dead_after: Duration) -> bool {
        let dead = state.held.values_mut().filter(|held| {
            held.consumer != self.consumer && dead_after <= held.renewed_at.elapsed()
        });
        let taken = dead.map(|held| {
            held.consumer.clone_from(&self.consumer);
            held.renewed_at = Instant::now();
        });
        0 < taken.count()
    }

    fn take_new(&self, state: &mut MemoryStreamState) -> StreamBatch {
        let new = state.entries[state.delivered..].iter().take(self.batch);
        let entries: Vec<_> = new.cloned().collect();
        state.delivered += entries.len();
        for entry in &entries {
            state.hold(entry.clone(), &self.consumer);
        }
        StreamBatch { entries, attempt: 1 }
    }
}

#[async_trait]
impl StreamConsumer for MemoryConsumer {
    async fn read(&mut self, dead_after: Duration) -> Result<StreamBatch, StreamError> {
        let stream = self.stream.clone();
        self.has_pending |= stream.call(|state| self.take_over(state, dead_after)).await?;
        if self.has_pending {
            match stream.call(|state| self.pending(state)).await? {
                Some(batch) => return Ok(batch),
                None => self.has_pending = false,
            }
        }
        let added = stream.added.notified();
        tokio::pin!(added);
        added.as_mut().enable();
        let batch = stream.call(|state| self.take_new(state)).await?;
        if batch.entries.is_empty() {
            let _ = timeout(READ_WAIT, added).await;
            return stream.call(|state| self.take_new(state)).await;
        }
        Ok(batch)
    }

    fn redeliver(&mut self) {
        self.has_pending = true;
    }

    async fn renew(&mut self, ids: &[String]) -> Result<bool, StreamError> {
        let consumer = &self.consumer;
        let renew = |state: &mut MemoryStreamState| {
            let ours =
                |id: &String| state.held.get(id).is_some_and(|held| held.consumer == *consumer);
            if !ids.iter().all(ours) {
                return false;
            }
            for held in state.held.values_mut().filter(|held| ids.contains(&held.entry.id)) {
                held.renewed_at = Instant::now();
            }
            true
        };
        self.stream.call(renew).await
    }

    async fn ack(&mut self, ids: &[String]) -> Result<(), StreamError> {
        self.stream.call(|state| state.acknowledge(ids)).await
    }

    async fn set_attempt(&mut self, ids: &[String], attempt: u32) -> Result<(), StreamError> {
        let consumer = &self.consumer;
        let set = |state: &mut MemoryStreamState| {
            for held in state.held.values_mut().filter(|held| ids.contains(&held.entry.id)) {
                held.consumer.clone_from(consumer);
                (held.attempt, held.renewed_at) = (attempt, Instant::now());
            }
        };
        self.stream.call(set).await
    }

    async fn dead_letter(
        &mut self,
        entries: &[StreamEntry],
        reason: &str,
    ) -> Result<(), StreamError> {
        let dead_letter = |state: &mut MemoryStreamState| {
            let ids: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
            state.dead_letters.extend(ids.iter().map(|id| (id.clone(), reason.to_owned())));
            state.acknowledge(&ids);
        };
        self.stream.call(dead_letter).await
    }

    async fn dead_lettered(&mut self) -> Result<u64, StreamError> {
        self.stream.call(|state| state.dead_letters.len() as u64).await
    }
}
