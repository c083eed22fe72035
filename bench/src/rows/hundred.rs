//! 100 functions called in turn on a node that has memory for 20.

use std::cell::Cell;
use std::time::Duration;

use crate::ceiling::Language;
use crate::client::Client;
use crate::report::{Line, Target, median, percentile};
use crate::run::{Run, sources};
use crate::server::{Server, Settings};

use super::cold::COUNTED;
use super::functions;

const FUNCTIONS: usize = 100;
const ROOM: usize = 20;
const MEMORY_MB: usize = 128;
/// Of the room, what nobody may be evicted for: an eighth may be prewarmed sandboxes', one is held.
const SURE_ROOM: usize = 16;
/// In the turn that is judged, one function is called so often: every call is a cold one, and no
/// node of this size makes containers faster than some five a second.
const EVERY: Duration = Duration::from_millis(500);
/// Calls of one function that follow each other meanwhile: none of them may lose its sandbox.
const HELD: &str = r#"{"sleep":5}"#;

pub(super) async fn run(row: &'static str, run: &Run) -> anyhow::Result<Vec<Line>> {
    let memory = ROOM * MEMORY_MB;
    let server =
        Server::start(run, Settings::docker().with("HANSHU_POOL__MEMORY_MB", memory)).await?;
    server.deploy(&sources().join("functions/sleep-python")).await?;
    let code = ("echo-python", Language::Python);
    functions::deploy(run, &server, code, ("turn", FUNCTIONS), "").await?;
    let turning = Cell::new(true);
    let calls = async {
        let mut client = server.client().await?;
        let mut early = f64::NAN;
        let mut at_once = Vec::new();
        for index in 0..FUNCTIONS {
            at_once.push(call(&mut client, index).await?);
            if index + 1 == SURE_ROOM {
                // The held one is busy, so all idle ones are of this turn.
                tokio::time::sleep(COUNTED).await;
                early = f64::from(u32::try_from(SURE_ROOM)?) - idle(&server).await?;
            }
        }
        let mut times = Vec::new();
        let mut paced = tokio::time::interval(EVERY);
        paced.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for index in 0..if run.measure.quick { FUNCTIONS / 3 } else { FUNCTIONS } {
            paced.tick().await;
            times.push(call(&mut client, index).await?);
        }
        anyhow::Ok((early, at_once, times))
    };
    let timed = async {
        let seen = calls.await;
        turning.set(false);
        seen
    };
    let (held, timed) = tokio::join!(hold(&server, &turning), timed);
    let (early, at_once, times) = timed?;
    let p99 = percentile(&times, 0.99).unwrap_or(f64::NAN);
    let metrics = server.metrics().await?;
    Ok(vec![
        Line::new(row, "p50", "ms")
            .ours(median(&times).into_iter().collect::<Vec<_>>())
            .target(Target::AtMost(40.0))
            .note(format!("one every {EVERY:?}; {} sandboxes were started", metrics.started())),
        Line::new(row, "p99", "ms").ours([p99]),
        Line::new(row, "p50 back to back", "ms")
            .ours(median(&at_once).into_iter().collect::<Vec<_>>())
            .note("the turn before: each call as soon as the one before was answered"),
        Line::new(row, "evicted while there was room", "")
            .ours([early])
            .target(Target::AtMost(0.0))
            .note(format!("after the first {SURE_ROOM} functions")),
        Line::new(row, "calls in use meanwhile that failed", "")
            .ours([if held.is_ok() { 0.0 } else { 1.0 }])
            .target(Target::AtMost(0.0))
            .note(match held {
                Ok(count) => format!("{count} calls of 5 s, one after the other"),
                Err(error) => format!("{error:#}"),
            }),
    ])
}

/// Keeps one sandbox in use; how many calls that took.
async fn hold(server: &Server, turning: &Cell<bool>) -> anyhow::Result<u32> {
    let mut client = server.client().await?;
    let mut count = 0;
    while turning.get() {
        client.invoke("held", HELD).await?.fine()?;
        count += 1;
    }
    Ok(count)
}

async fn idle(server: &Server) -> anyhow::Result<f64> {
    Ok(server.metrics().await?.one("hanshu_sandboxes{state=\"idle\"}"))
}

async fn call(client: &mut Client, index: usize) -> anyhow::Result<f64> {
    Ok(client.invoke(&format!("turn-{index}"), "{}").await?.fine()?.took_ms())
}
