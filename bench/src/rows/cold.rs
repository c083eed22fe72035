//! First calls, measured at the client: by a prewarmed sandbox, by Docker alone, by process sandboxes.

use std::time::{Duration, Instant};

use super::functions;
use crate::ceiling::{BareDocker, Language, Program};
use crate::client::Client;
use crate::report::{Line, Target, median};
use crate::run::Run;
use crate::server::{Server, Settings};

/// Until a prewarmed sandbox must be ready, where there are any.
const PREWARM_WITHIN: Duration = Duration::from_secs(5);
/// How long a server's own work after a start gets before the next call is timed.
const REST: Duration = Duration::from_millis(300);
/// The server counts its prewarmed sandboxes this often; before that, one that was taken is still counted.
pub(super) const COUNTED: Duration = Duration::from_millis(600);
/// No sandbox without a function is kept.
pub(super) const NO_PREWARM_CELLS: (&str, u32) = ("HANSHU_POOL__PREWARMED_MIN", 0);

/// The echo in this language.
fn code(language: Language) -> &'static str {
    match language {
        Language::Python => "echo-python",
        Language::Node => "echo-node",
        Language::Go => "echo-go",
    }
}

/// With a prewarmed sandbox ready: at most so many milliseconds in the middle.
pub(super) async fn prewarmed(
    row: &'static str,
    run: &Run,
    language: Language,
    p50_ms_max: f64,
) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(run, Settings::docker()).await?;
    let count = run.samples(15, 5);
    let folder = (code(language), language);
    functions::deploy(run, &server, folder, ("kind", 1), "").await?;
    let mut client = server.client().await?;
    client.invoke("kind-0", "{}").await?.fine()?;
    until_prewarmed(&server, language).await?;
    functions::deploy(run, &server, folder, ("first", 1), "").await?;
    let first = client.invoke("first-0", "{}").await?.fine()?.took_ms();
    functions::deploy(run, &server, folder, ("cold", count), "").await?;
    let (mut times, mut ready) = (Vec::new(), 0);
    for index in 0..count {
        ready += usize::from(until_prewarmed(&server, language).await?);
        times.push(client.invoke(&format!("cold-{index}"), "{}").await?.fine()?.took_ms());
    }
    Ok(vec![
        Line::new(row, "p50", "ms")
            .ours(times)
            .target(Target::AtMost(p50_ms_max))
            .note(format!("a prewarmed sandbox was seen ready before {ready} of {count} calls")),
        Line::new(row, "first call after deploy", "ms")
            .ours([first])
            .target(Target::AtMost(p50_ms_max)),
    ])
}

/// Whether one is ready within the time; then a little rest.
async fn until_prewarmed(server: &Server, language: Language) -> anyhow::Result<bool> {
    let ready_now = format!("hanshu_prewarmed_sandboxes{{runtime=\"{}\"}}", language.family());
    tokio::time::sleep(COUNTED).await;
    let begun = Instant::now();
    let mut ready = false;
    while !ready && begun.elapsed() < PREWARM_WITHIN {
        ready = 1.0 <= server.metrics().await?.one(&ready_now);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(REST).await;
    Ok(ready)
}

/// Without prewarmed sandboxes: against Docker's API and the interpreter's own start.
pub(super) async fn docker(
    row: &'static str,
    run: &Run,
    language: Language,
) -> anyhow::Result<Vec<Line>> {
    let (name, none) = NO_PREWARM_CELLS;
    let server = Server::start(run, Settings::docker().with(name, none)).await?;
    let count = run.samples(8, 3);
    let all = ("cold", count + 1);
    functions::deploy(run, &server, (code(language), language), all, "").await?;
    let mut client = server.client().await?;
    client.invoke(&format!("cold-{count}"), "{}").await?.fine()?;
    let bare = BareDocker::new(language)?;
    let (mut ours, mut alone, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    let mut interpreter = Vec::new();
    for index in 0..count {
        tokio::time::sleep(REST).await;
        ours.push(cold_call(&mut client, index).await?);
        tokio::time::sleep(REST).await;
        let api = bare_ms(run, &bare, Program::Byte).await?;
        tokio::time::sleep(REST).await;
        let whole = bare_ms(run, &bare, Program::Worker(language)).await?;
        alone.push(api);
        interpreter.push((whole - api).max(0.0));
        limits.push(1.2 * api + (whole - api).max(0.0));
    }
    let middle = |values: &[f64]| median(values).unwrap_or(f64::NAN);
    let note = format!(
        "the ceiling is 1.2 x Docker's API ({:.0} ms) + the interpreter's start ({:.0} ms)",
        middle(&alone),
        middle(&interpreter)
    );
    let limit = Target::RatioAtMost(1.0);
    Ok(vec![Line::new(row, "p50", "ms").ours(ours).ceiling(limits).target(limit).note(note)])
}

async fn bare_ms(run: &Run, bare: &BareDocker, program: Program) -> anyhow::Result<f64> {
    let started = bare.start(run, program).await?;
    let took = started.took.as_secs_f64() * 1e3;
    started.remove().await?;
    Ok(took)
}

async fn cold_call(client: &mut Client, index: usize) -> anyhow::Result<f64> {
    Ok(client.invoke(&format!("cold-{index}"), "{}").await?.fine()?.took_ms())
}

/// Process sandboxes without prewarmed sandboxes.
pub(super) async fn process(
    row: &'static str,
    run: &Run,
    language: Language,
    p50_ms_max: f64,
) -> anyhow::Result<Vec<Line>> {
    let (name, none) = NO_PREWARM_CELLS;
    let server = Server::start(run, Settings::process().with(name, none)).await?;
    let count = run.samples(15, 5);
    functions::deploy(run, &server, (code(language), language), ("cold", count), "").await?;
    let mut client = server.client().await?;
    let mut times = Vec::new();
    for index in 0..count {
        tokio::time::sleep(REST).await;
        times.push(cold_call(&mut client, index).await?);
    }
    Ok(vec![Line::new(row, "p50", "ms").ours(times).target(Target::AtMost(p50_ms_max))])
}
