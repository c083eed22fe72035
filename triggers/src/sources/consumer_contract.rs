//! What every [`StreamConsumer`] must do: each broker's tests run these checks on it.

use std::time::Duration;

use async_trait::async_trait;

use super::consumer::{ConsumerIdentity, StreamBatch, StreamConsumer, StreamSource};

/// A stream of its own on a broker, with one trigger that reads it in batches of ten.
#[async_trait]
pub(super) trait ContractStream: Send + Sync {
    fn source(&self) -> &dyn StreamSource;

    /// Adds an entry with the field `n`.
    async fn add(&self, n: u32);

    async fn remove(&self);
}

/// Runs all checks; `make` makes a new stream for each.
pub(super) async fn check_consumers<S: ContractStream>(make: impl AsyncFn() -> S) {
    let streams = [make().await, make().await, make().await, make().await];
    entries_come_in_order_and_are_held(&streams[0]).await;
    held_entries_come_again_after_a_reconnect(&streams[1]).await;
    entries_of_a_dead_consumer_are_taken_over(&streams[2]).await;
    dead_letters_are_acknowledged_and_counted(&streams[3]).await;
    for stream in streams {
        stream.remove().await;
    }
}

/// No consumer of these tests is silent for so long.
const NEVER: Duration = Duration::from_secs(600);

async fn connect(stream: &impl ContractStream, consumer: &str) -> Box<dyn StreamConsumer> {
    let identity = ConsumerIdentity { group: "hanshu:a/b/c".into(), consumer: consumer.into() };
    stream.source().connect(&identity).await.unwrap()
}

async fn add(stream: &impl ContractStream, numbers: std::ops::Range<u32>) {
    for n in numbers {
        stream.add(n).await;
    }
}

fn ids(batch: &StreamBatch) -> Vec<String> {
    batch.entries.iter().map(|entry| entry.id.clone()).collect()
}

fn numbers(batch: &StreamBatch) -> Vec<u32> {
    let value = |fields: &[(Vec<u8>, Vec<u8>)]| String::from_utf8(fields[0].1.clone()).unwrap();
    batch.entries.iter().map(|entry| value(&entry.fields).parse().unwrap()).collect()
}

async fn entries_come_in_order_and_are_held(stream: &impl ContractStream) {
    add(stream, 0..12).await;
    let (mut one, mut other) = (connect(stream, "one").await, connect(stream, "other").await);
    let first = one.read(NEVER).await.unwrap();
    assert_eq!((numbers(&first), first.attempt), (Vec::from_iter(0..10), 1));
    let second = other.read(NEVER).await.unwrap();
    assert_eq!(numbers(&second), [10, 11], "each entry is given to one consumer");
    assert_eq!(numbers(&one.read(NEVER).await.unwrap()), [0; 0]);
    assert!(one.renew(&ids(&first)).await.unwrap());
    assert!(!one.renew(&ids(&second)).await.unwrap(), "the other one holds them");
    one.redeliver();
    assert_eq!(one.read(NEVER).await.unwrap(), first);
    one.ack(&ids(&first)).await.unwrap();
    one.redeliver();
    assert_eq!(numbers(&one.read(NEVER).await.unwrap()), [0; 0]);
}

async fn held_entries_come_again_after_a_reconnect(stream: &impl ContractStream) {
    add(stream, 0..4).await;
    let mut before = connect(stream, "node").await;
    let batch = before.read(NEVER).await.unwrap();
    before.set_attempt(&ids(&batch)[..2], 3).await.unwrap();
    before.set_attempt(&ids(&batch)[2..3], 2).await.unwrap();
    add(stream, 4..5).await;
    let mut after = connect(stream, "node").await;
    for (expected, attempt) in [(vec![0, 1], 3), (vec![2], 2), (vec![3], 1), (vec![4], 1)] {
        let batch = after.read(NEVER).await.unwrap();
        assert_eq!((numbers(&batch), batch.attempt), (expected, attempt));
        after.ack(&ids(&batch)).await.unwrap();
    }
}

async fn entries_of_a_dead_consumer_are_taken_over(stream: &impl ContractStream) {
    add(stream, 0..2).await;
    let mut dead = connect(stream, "dead").await;
    let batch = dead.read(NEVER).await.unwrap();
    dead.set_attempt(&ids(&batch), 2).await.unwrap();
    let alive = connect(stream, "heir").await.read(NEVER).await.unwrap();
    assert_eq!(numbers(&alive), [0; 0], "it may be alive");
    let mut heir = connect(stream, "heir").await;
    let mut taken = heir.read(Duration::from_millis(50)).await.unwrap();
    while taken.entries.is_empty() {
        // A read waits a second; consumers look for dead ones at their first read.
        heir = connect(stream, "heir").await;
        taken = heir.read(Duration::from_millis(50)).await.unwrap();
    }
    assert_eq!((numbers(&taken), taken.attempt), (vec![0, 1], 2));
    assert!(!dead.renew(&ids(&batch)).await.unwrap(), "the dead one learns of it");
    assert!(heir.renew(&ids(&batch)).await.unwrap());
}

async fn dead_letters_are_acknowledged_and_counted(stream: &impl ContractStream) {
    add(stream, 0..3).await;
    let mut consumer = connect(stream, "node").await;
    assert_eq!(consumer.dead_lettered().await.unwrap(), 0);
    let batch = consumer.read(NEVER).await.unwrap();
    consumer.dead_letter(&batch.entries[1..], "boom").await.unwrap();
    assert_eq!(consumer.dead_lettered().await.unwrap(), 2);
    let again = connect(stream, "node").await.read(NEVER).await.unwrap();
    assert_eq!(numbers(&again), [0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::memory::{MemoryStream, MemoryTrigger};

    #[async_trait]
    impl ContractStream for MemoryTrigger {
        fn source(&self) -> &dyn StreamSource {
            self
        }

        async fn add(&self, n: u32) {
            MemoryStream::named(&self.stream).add(vec![(b"n".to_vec(), n.to_string().into())]);
        }

        async fn remove(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_memory_consumer_keeps_the_contract() {
        let new =
            async || MemoryTrigger { stream: hanshu_core::RequestId::new().to_string(), batch: 10 };
        check_consumers(new).await;
    }
}
