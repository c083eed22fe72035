//! Asynchronous calls until they are accepted, 1 KB, durable, 64 clients; against the bare store.

use std::time::Duration;

use crate::ceiling::{self, Redis};
use crate::client::Client;
use crate::report::{Line, Target};
use crate::run::{Run, sources};
use crate::server::{Server, Settings};
use crate::wrk;

const CLIENTS: u32 = 64;
const BYTES: usize = 1024;
/// One at a time sleeps that long, so that acceptance is what is measured.
const SLEEP_S: u32 = 30;
const NAME: &str = "one-at-a-time";

/// Into the embedded queue.
pub(super) async fn sqlite(row: &'static str, run: &Run) -> anyhow::Result<Vec<Line>> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let time = Duration::from_secs(run.measure.seconds);
    for _ in 0..run.measure.repeats {
        ours.push(accepted(run, Settings::docker()).await?);
        let producers = u64::from(CLIENTS);
        bare.push(ceiling::inserted_per_second(run.dir(), &event(), producers, time)?);
    }
    Ok(vec![line(row, ours, bare, "SQLite, WAL, synchronous = FULL, one commit for all that wait")])
}

/// Into a Redis that syncs before it answers.
pub(super) async fn redis(row: &'static str, run: &Run) -> anyhow::Result<Vec<Line>> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let time = Duration::from_secs(run.measure.seconds);
    for _ in 0..run.measure.repeats {
        // A fresh one for each turn: neither is slowed by what the other left.
        let redis = Redis::start(run).await?;
        ours.push(accepted(run, Settings::docker().with("HANSHU_QUEUE", redis.url())).await?);
        drop(redis);
        let redis = Redis::start(run).await?;
        let producers = usize::try_from(CLIENTS)?;
        bare.push(redis.added_per_second(&event(), producers, time).await?);
    }
    Ok(vec![line(row, ours, bare, "appendfsync always; bare: 64 producers on one connection")])
}

fn line(row: &'static str, ours: Vec<f64>, bare: Vec<f64>, note: &str) -> Line {
    Line::new(row, "accepted", "/s")
        .ours(ours)
        .ceiling(bare)
        .target(Target::RatioAtLeast(0.5))
        .note(note)
}

fn event() -> Vec<u8> {
    let open = format!("{{\"sleep\":{SLEEP_S},\"data\":\"");
    let fill = "x".repeat(BYTES - open.len() - 2);
    format!("{open}{fill}\"}}").into_bytes()
}

async fn accepted(run: &Run, settings: Settings) -> anyhow::Result<f64> {
    let server = Server::start(run, settings.with("HANSHU_GRACE_S", 0)).await?;
    server.deploy(&sources().join("functions/sleep-python")).await?;
    let mut request = server.call(NAME, &event())?;
    Client::once(&server.call(NAME, b"{}")?).await?;
    request.headers.push(("prefer", "respond-async".into()));
    wrk::run(run.dir(), &request, CLIENTS, 1).await?.unbroken()?;
    let seen = wrk::run(run.dir(), &request, CLIENTS, run.measure.seconds).await?.faultless()?;
    Ok(seen.per_second())
}
