//! Holds of a process that is dead, on a database that has one process.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::ports::{EventQueue as _, NewEvent, QueueName};
use hanshu_core::{Clock as _, Digest, Event, NodeId, Origin, Qualifier, RequestId, SystemClock};
use hanshu_store::{SqlDatabase, SqlQueue};
use tokio_util::task::TaskTracker;

#[tokio::test]
async fn a_new_process_claims_at_once_what_the_dead_one_held() {
    let db = SqlDatabase::open("sqlite::memory:").await.unwrap();
    let tasks = TaskTracker::new();
    let queue = SqlQueue::start(db, Arc::new(SystemClock), &tasks);
    let name: QueueName = "default/hello".parse().unwrap();
    let now = SystemClock.now();
    let event = NewEvent {
        request_id: RequestId::new(),
        queue: name.clone(),
        version: Qualifier::Latest,
        revision: Digest::from_bytes([7; 32]),
        event: Event { origin: Origin::Direct, payload: "{}".into() },
        accepted_at: now,
        expires_at: now + Duration::from_secs(60),
        max_waiting: 10,
        tick: None,
        rerun_of: None,
    };
    queue.push(event).await.unwrap();
    let claim = async || {
        let hold = Duration::from_secs(30);
        queue.source(&name).claim(1, hold, &NodeId::new()).await.unwrap()
    };
    assert_eq!(claim().await.len(), 1);
    assert_eq!(claim().await.len(), 0, "it is held");
    assert_eq!(queue.release_all().await.unwrap(), 1);
    let again = claim().await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].attempt, 2, "the dead attempt counts");
    queue.close();
}
