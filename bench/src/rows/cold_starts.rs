//! Cold starts, timed at the client: with prewarmed sandboxes, with Docker alone, with processes.

use std::time::{Duration, Instant};

use super::generated_functions::GeneratedFunctions;
use crate::ceiling::{BareDocker, ContainerProgram, WorkerLanguage};
use crate::client::BenchClient;
use crate::report::{MeasuredFigure, PromiseTarget, median};
use crate::run::BenchRun;
use crate::server::{BenchServer, BenchServerSettings};

/// Longest wait until a prewarmed sandbox is ready.
const PREWARM_WITHIN: Duration = Duration::from_secs(5);
/// Pause before each timed call, for the server's own work after a start.
const REST: Duration = Duration::from_millis(300);
/// How old the server's metrics may be; a prewarmed sandbox that was taken is counted until then.
pub(super) const METRICS_DELAY: Duration = Duration::from_millis(600);
/// The setting that disables prewarming.
pub(super) const NO_PREWARMED: (&str, u32) = ("HANSHU_POOL__PREWARMED_MIN", 0);

/// Echo functions in this language.
fn echo_functions(language: WorkerLanguage, prefix: &str, count: usize) -> GeneratedFunctions<'_> {
    let folder = match language {
        WorkerLanguage::Python => "echo-python",
        WorkerLanguage::Node => "echo-node",
        WorkerLanguage::Go => "echo-go",
    };
    GeneratedFunctions { folder, language, prefix, count, settings: "" }
}

/// With a prewarmed sandbox ready; the target is for p50, in milliseconds.
pub(super) async fn prewarmed(
    row: &'static str,
    run: &BenchRun,
    language: WorkerLanguage,
    p50_ms_max: f64,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    let count = run.samples(15, 5);
    echo_functions(language, "kind", 1).deploy(run, &server).await?;
    let mut client = server.client().await?;
    client.invoke("kind-0", "{}").await?.expect_success()?;
    until_prewarmed(&server, language).await?;
    echo_functions(language, "first", 1).deploy(run, &server).await?;
    let first = client.invoke("first-0", "{}").await?.expect_success()?.took_ms();
    echo_functions(language, "cold", count).deploy(run, &server).await?;
    let (mut times, mut ready) = (Vec::new(), 0);
    for index in 0..count {
        ready += usize::from(until_prewarmed(&server, language).await?);
        times
            .push(client.invoke(&format!("cold-{index}"), "{}").await?.expect_success()?.took_ms());
    }
    Ok(vec![
        MeasuredFigure::new(row, "p50", "ms")
            .ours(times)
            .target(PromiseTarget::AtMost(p50_ms_max))
            .note(format!("a prewarmed sandbox was ready before {ready} of {count} calls")),
        MeasuredFigure::new(row, "first call after deploy", "ms")
            .ours([first])
            .target(PromiseTarget::AtMost(p50_ms_max)),
    ])
}

/// Waits until a prewarmed sandbox is ready; whether there is one.
async fn until_prewarmed(server: &BenchServer, language: WorkerLanguage) -> anyhow::Result<bool> {
    let ready_now = format!("hanshu_prewarmed_sandboxes{{runtime=\"{}\"}}", language.family());
    tokio::time::sleep(METRICS_DELAY).await;
    let begun = Instant::now();
    let mut ready = false;
    while !ready && begun.elapsed() < PREWARM_WITHIN {
        ready = 1.0 <= server.metrics().await?.one(&ready_now);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(REST).await;
    Ok(ready)
}

/// Without prewarmed sandboxes, against Docker's API and the interpreter's own start.
pub(super) async fn docker(
    row: &'static str,
    run: &BenchRun,
    language: WorkerLanguage,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let (name, none) = NO_PREWARMED;
    let server = BenchServer::start(run, BenchServerSettings::docker().with(name, none)).await?;
    let count = run.samples(8, 3);
    echo_functions(language, "cold", count + 1).deploy(run, &server).await?;
    let mut client = server.client().await?;
    client.invoke(&format!("cold-{count}"), "{}").await?.expect_success()?;
    let bare = BareDocker::new(language)?;
    let (mut ours, mut alone, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    let mut interpreter = Vec::new();
    for index in 0..count {
        tokio::time::sleep(REST).await;
        ours.push(cold_call(&mut client, index).await?);
        tokio::time::sleep(REST).await;
        let api = bare_ms(run, &bare, ContainerProgram::Byte).await?;
        tokio::time::sleep(REST).await;
        let with_interpreter = bare_ms(run, &bare, ContainerProgram::Worker(language)).await?;
        alone.push(api);
        interpreter.push((with_interpreter - api).max(0.0));
        limits.push(1.2 * api + (with_interpreter - api).max(0.0));
    }
    let middle = |values: &[f64]| median(values).unwrap_or(f64::NAN);
    let note = format!(
        "the ceiling is 1.2 x Docker's API ({:.0} ms) + the interpreter's start ({:.0} ms)",
        middle(&alone),
        middle(&interpreter)
    );
    let limit = PromiseTarget::RatioAtMost(1.0);
    Ok(vec![
        MeasuredFigure::new(row, "p50", "ms").ours(ours).ceiling(limits).target(limit).note(note),
    ])
}

async fn bare_ms(
    run: &BenchRun,
    bare: &BareDocker,
    program: ContainerProgram,
) -> anyhow::Result<f64> {
    let started = bare.start(run, program).await?;
    let took = started.took.as_secs_f64() * 1e3;
    started.remove().await?;
    Ok(took)
}

async fn cold_call(client: &mut BenchClient, index: usize) -> anyhow::Result<f64> {
    Ok(client.invoke(&format!("cold-{index}"), "{}").await?.expect_success()?.took_ms())
}

/// In process sandboxes, without prewarmed ones.
pub(super) async fn process(
    row: &'static str,
    run: &BenchRun,
    language: WorkerLanguage,
    p50_ms_max: f64,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let (name, none) = NO_PREWARMED;
    let server = BenchServer::start(run, BenchServerSettings::process().with(name, none)).await?;
    let count = run.samples(15, 5);
    echo_functions(language, "cold", count).deploy(run, &server).await?;
    let mut client = server.client().await?;
    let mut times = Vec::new();
    for index in 0..count {
        tokio::time::sleep(REST).await;
        times.push(cold_call(&mut client, index).await?);
    }
    Ok(vec![
        MeasuredFigure::new(row, "p50", "ms").ours(times).target(PromiseTarget::AtMost(p50_ms_max)),
    ])
}
