//! Measures queues: `cargo run -p hanshu-store --example queue_rates -- URL [EVENTS]`, where URL is
//! `sqlite:PATH`, `postgres://…` or `redis://…`. Events of 1 KB, 64 producers, 8 claimers.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::try_join_all;
use hanshu_core::ports::{EventEnd, EventQueue, NewEvent, QueueError};
use hanshu_core::{
    Clock as _, Digest, Event, NodeId, Origin, Qualifier, RequestId, SystemClock, Timestamp,
};
use hanshu_store::{RedisOptions, RedisQueue, SqlDatabase, SqlQueue};
use tokio_util::task::TaskTracker;

const PRODUCERS: usize = 64;
const CLAIMERS: usize = 8;
const BATCH: usize = 32;
const EMPTY_QUEUES: usize = 10_000;
const HOLD: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().context("which URL?")?;
    let events: usize = args.next().map_or(Ok(20_000), |text| text.parse())?;
    let queue = open(&url).await?;

    let start = Instant::now();
    let each = events / PRODUCERS;
    try_join_all((0..PRODUCERS).map(|_| push(&*queue, "default/bench", each))).await?;
    tell("pushes", each * PRODUCERS, start);

    time_ready(&*queue, "one queue with all of them").await?;
    let empty = EMPTY_QUEUES.min(events) / PRODUCERS;
    try_join_all((0..PRODUCERS).map(|n| make_empty(&*queue, n * empty..(n + 1) * empty))).await?;
    time_ready(&*queue, &format!("and {} empty queues", empty * PRODUCERS)).await?;

    let start = Instant::now();
    let ended = try_join_all((0..CLAIMERS).map(|_| drain(&*queue, "default/bench"))).await?;
    tell("claims and ends", ended.iter().sum(), start);

    let start = Instant::now();
    let dropped = queue.collect(SystemClock.now() + HOLD).await?;
    tell("collected", usize::try_from(dropped)?, start);
    Ok(())
}

async fn open(url: &str) -> anyhow::Result<Arc<dyn EventQueue>> {
    let clock = Arc::new(SystemClock);
    if url.starts_with("redis:") {
        let name = format!("bench-{}", RequestId::new());
        let options = RedisOptions { name, ..RedisOptions::default() };
        return Ok(Arc::new(RedisQueue::connect(url, clock, &TaskTracker::new(), &options).await?));
    }
    let db = SqlDatabase::open(url).await?;
    Ok(Arc::new(SqlQueue::start(db, clock, &TaskTracker::new())))
}

async fn push(queue: &dyn EventQueue, name: &str, count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        let now = SystemClock.now();
        queue.push(event(name, now)?).await?;
    }
    Ok(())
}

fn event(name: &str, now: Timestamp) -> anyhow::Result<NewEvent> {
    let payload = Bytes::from(format!("\"{}\"", "x".repeat(1022)));
    Ok(NewEvent {
        request_id: RequestId::new(),
        queue: name.parse()?,
        version: Qualifier::Latest,
        revision: Digest::from_bytes([7; 32]),
        event: Event { origin: Origin::Direct, payload },
        accepted_at: now,
        expires_at: now + HOLD,
        max_waiting: u32::MAX,
        tick: None,
        rerun_of: None,
    })
}

async fn make_empty(queue: &dyn EventQueue, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
    for number in numbers {
        let name = format!("default/empty-{number}");
        push(queue, &name, 1).await?;
        drain(queue, &name).await?;
    }
    Ok(())
}

/// Claims and ends until nothing is due.
async fn drain(queue: &dyn EventQueue, name: &str) -> anyhow::Result<usize> {
    let (source, node) = (queue.source(&name.parse()?), NodeId::new());
    let mut ended = 0;
    loop {
        let claims = source.claim(BATCH, HOLD, &node).await?;
        if claims.is_empty() {
            return Ok(ended);
        }
        ended += claims.len();
        let ends = claims.iter().map(|claim| {
            source.end(&claim.receipt, None, EventEnd::Succeeded(Bytes::from_static(b"1")))
        });
        try_join_all(ends).await?;
    }
}

async fn time_ready(queue: &dyn EventQueue, what: &str) -> Result<(), QueueError> {
    const TIMES: u32 = 100;
    let start = Instant::now();
    for _ in 0..TIMES {
        queue.ready(10).await?;
    }
    println!("ready: {:?} with {what}", start.elapsed() / TIMES);
    Ok(())
}

fn tell(what: &str, count: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = count as f64 / seconds;
    println!("{what}: {count} in {seconds:.2} s = {rate:.0}/s");
}
