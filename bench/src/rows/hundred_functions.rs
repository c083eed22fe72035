//! 100 functions called in turn on a node with memory for 20 sandboxes.

use std::cell::Cell;
use std::time::Duration;

use crate::ceiling::WorkerLanguage;
use crate::client::BenchClient;
use crate::report::{MeasuredFigure, PromiseTarget, median, percentile};
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};

use super::cold_starts::METRICS_DELAY;
use super::generated_functions::GeneratedFunctions;

const FUNCTIONS: usize = 100;
const ROOM: usize = 20;
const MEMORY_MB: usize = 128;
/// Sandboxes that must not be evicted: an eighth of 20 may be prewarmed ones, and one is held.
const SURE_ROOM: usize = 16;
/// Pause between the timed calls: each is a cold start, and a node of this size starts some five
/// containers a second.
const EVERY: Duration = Duration::from_millis(500);
/// Event of the calls that hold one sandbox meanwhile: it must not be evicted.
const HELD: &str = r#"{"sleep":5}"#;

pub(super) async fn run(row: &'static str, run: &BenchRun) -> anyhow::Result<Vec<MeasuredFigure>> {
    let memory = ROOM * MEMORY_MB;
    let server = BenchServer::start(
        run,
        BenchServerSettings::docker().with("HANSHU_POOL__MEMORY_MB", memory),
    )
    .await?;
    server.deploy(&crate_dir().join("functions/sleep-python")).await?;
    let functions = GeneratedFunctions {
        folder: "echo-python",
        language: WorkerLanguage::Python,
        prefix: "turn",
        count: FUNCTIONS,
        settings: "",
    };
    functions.deploy(run, &server).await?;
    let turning = Cell::new(true);
    let calls = async {
        let mut client = server.client().await?;
        let mut early = f64::NAN;
        let mut at_once = Vec::new();
        for index in 0..FUNCTIONS {
            at_once.push(call(&mut client, index).await?);
            if index + 1 == SURE_ROOM {
                // The held sandbox is busy, so all idle ones belong to these functions.
                tokio::time::sleep(METRICS_DELAY).await;
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
        let result = calls.await;
        turning.set(false);
        result
    };
    let (held, timed) = tokio::join!(hold(&server, &turning), timed);
    let (early, at_once, times) = timed?;
    let p99 = percentile(&times, 0.99).unwrap_or(f64::NAN);
    let metrics = server.metrics().await?;
    Ok(vec![
        MeasuredFigure::new(row, "p50", "ms")
            .ours(median(&times).into_iter().collect::<Vec<_>>())
            .target(PromiseTarget::AtMost(40.0))
            .note(format!("one every {EVERY:?}; {} sandboxes were started", metrics.started())),
        MeasuredFigure::new(row, "p99", "ms").ours([p99]),
        MeasuredFigure::new(row, "p50 back to back", "ms")
            .ours(median(&at_once).into_iter().collect::<Vec<_>>())
            .note("the turn before: each call as soon as the one before was answered"),
        MeasuredFigure::new(row, "evicted while there was room", "")
            .ours([early])
            .target(PromiseTarget::AtMost(0.0))
            .note(format!("after the first {SURE_ROOM} functions")),
        MeasuredFigure::new(row, "calls in use meanwhile that failed", "")
            .ours([if held.is_ok() { 0.0 } else { 1.0 }])
            .target(PromiseTarget::AtMost(0.0))
            .note(match held {
                Ok(count) => format!("{count} calls of 5 s, one after the other"),
                Err(error) => format!("{error:#}"),
            }),
    ])
}

/// Calls one function until `turning` is `false`; how many calls that took.
async fn hold(server: &BenchServer, turning: &Cell<bool>) -> anyhow::Result<u32> {
    let mut client = server.client().await?;
    let mut count = 0;
    while turning.get() {
        client.invoke("held", HELD).await?.expect_success()?;
        count += 1;
    }
    Ok(count)
}

async fn idle(server: &BenchServer) -> anyhow::Result<f64> {
    Ok(server.metrics().await?.one("hanshu_sandboxes{state=\"idle\"}"))
}

async fn call(client: &mut BenchClient, index: usize) -> anyhow::Result<f64> {
    Ok(client.invoke(&format!("turn-{index}"), "{}").await?.expect_success()?.took_ms())
}
