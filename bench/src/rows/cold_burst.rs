//! 200 simultaneous calls of a cold function that sleeps 100 ms and has a concurrency of 20.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::{join_all, try_join_all};
use tokio::sync::Semaphore;

use super::generated_functions::GeneratedFunctions;
use crate::ceiling::{BareDocker, ContainerProgram, WorkerLanguage};
use crate::client::BenchClient;
use crate::report::{MeasuredFigure, PromiseTarget};
use crate::run::BenchRun;
use crate::server::{BenchServer, BenchServerSettings};

const CALLS: usize = 200;
const CONCURRENCY: usize = 20;
const SLEEP_S: f64 = 0.1;
/// How many bare containers are started at once; the faster of both is the ceiling.
const STARTS_AT_ONCE: [usize; 2] = [2, 4];

pub(super) async fn run(row: &'static str, run: &BenchRun) -> anyhow::Result<Vec<MeasuredFigure>> {
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    let repeats = usize::try_from(run.measure.repeats.min(3))?;
    let functions = GeneratedFunctions {
        folder: "sleep-python",
        language: WorkerLanguage::Python,
        prefix: "burst",
        count: repeats + 1,
        settings: "concurrency = 20\ntimeout_s = 10",
    };
    functions.deploy(run, &server).await?;
    server.client().await?.invoke(&format!("burst-{repeats}"), "{}").await?.expect_success()?;
    let bare = BareDocker::new(WorkerLanguage::Python)?;
    let (mut last, mut formula, mut answered) = (Vec::new(), Vec::new(), Vec::new());
    let (mut sandboxes, mut notes) = (Vec::new(), Vec::new());
    for index in 0..repeats {
        let before = server.metrics().await?.started();
        let (took, fine) = burst(&server, &format!("burst-{index}")).await?;
        sandboxes.push(server.metrics().await?.started() - before);
        let starts = bare_starts(run, &bare).await?;
        let rounds = SLEEP_S * as_f64(CALLS / CONCURRENCY);
        last.push(took);
        answered.push(as_f64(fine));
        formula.push(starts + rounds);
        notes.push(format!(
            "last answer {took:.2} s against 20 bare starts {starts:.2} s ({:.1}/s) + {rounds:.1} s",
            as_f64(CONCURRENCY) / starts
        ));
    }
    Ok(vec![
        MeasuredFigure::new(row, "last answer", "s")
            .ours(last)
            .ceiling(formula)
            .target(PromiseTarget::RatioAtMost(1.3))
            .note(notes.join("; ")),
        MeasuredFigure::new(row, "answered of 200", "")
            .ours(answered)
            .target(PromiseTarget::AtLeast(as_f64(CALLS))),
        MeasuredFigure::new(row, "sandboxes started", "")
            .ours(sandboxes)
            .target(PromiseTarget::AtMost(as_f64(CONCURRENCY))),
    ])
}

fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::NAN, f64::from)
}

/// Sends all calls at once.
async fn burst(server: &BenchServer, name: &str) -> anyhow::Result<(f64, usize)> {
    let clients = try_join_all((0..CALLS).map(|_| server.client())).await?;
    let event = format!("{{\"sleep\":{SLEEP_S}}}");
    let begun = Instant::now();
    let calls = clients.into_iter().map(|client| one(client, name, &event));
    let answers = join_all(calls).await;
    let took = begun.elapsed().as_secs_f64();
    Ok((took, answers.into_iter().filter(Result::is_ok).count()))
}

async fn one(mut client: BenchClient, name: &str, event: &str) -> anyhow::Result<()> {
    client.invoke(name, event).await?.expect_success().map(drop)
}

/// Seconds until 20 bare containers have sent their first byte.
async fn bare_starts(run: &BenchRun, bare: &BareDocker) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for at_once in STARTS_AT_ONCE {
        let turns = Arc::new(Semaphore::new(at_once));
        let begun = Instant::now();
        let starts = (0..CONCURRENCY).map(|_| async {
            let turn = turns.acquire().await.context("no turn")?;
            let started = bare.start(run, ContainerProgram::Worker(WorkerLanguage::Python)).await?;
            drop(turn);
            anyhow::Ok((started, begun.elapsed()))
        });
        let started = try_join_all(starts).await?;
        let took = started.iter().map(|(_, at)| *at).max().unwrap_or(Duration::ZERO);
        best = best.min(took.as_secs_f64());
        for (container, _) in started {
            container.remove().await?;
        }
    }
    Ok(best)
}
