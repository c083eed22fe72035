//! 200 calls at once to one cold function that sleeps 100 ms and may run 20 at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::{join_all, try_join_all};
use tokio::sync::Semaphore;

use super::functions;
use crate::ceiling::{BareDocker, Language, Program};
use crate::client::Client;
use crate::report::{Line, Target};
use crate::run::Run;
use crate::server::{Server, Settings};

const CALLS: usize = 200;
const CONCURRENCY: usize = 20;
const SLEEP_S: f64 = 0.1;
/// Bare starts at once, of which the faster is taken.
const STARTS_AT_ONCE: [usize; 2] = [2, 4];

pub(super) async fn run(row: &'static str, run: &Run) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(run, Settings::docker()).await?;
    let repeats = usize::try_from(run.measure.repeats.min(3))?;
    let settings = "concurrency = 20\ntimeout_s = 10";
    let code = ("sleep-python", Language::Python);
    functions::deploy(run, &server, code, ("burst", repeats + 1), settings).await?;
    server.client().await?.invoke(&format!("burst-{repeats}"), "{}").await?.fine()?;
    let bare = BareDocker::new(Language::Python)?;
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
        Line::new(row, "last answer", "s")
            .ours(last)
            .ceiling(formula)
            .target(Target::RatioAtMost(1.3))
            .note(notes.join("; ")),
        Line::new(row, "answered of 200", "").ours(answered).target(Target::AtLeast(as_f64(CALLS))),
        Line::new(row, "sandboxes started", "")
            .ours(sandboxes)
            .target(Target::AtMost(as_f64(CONCURRENCY))),
    ])
}

fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::NAN, f64::from)
}

/// Seconds until the last answer, and how many were successes.
async fn burst(server: &Server, name: &str) -> anyhow::Result<(f64, usize)> {
    let clients = try_join_all((0..CALLS).map(|_| server.client())).await?;
    let event = format!("{{\"sleep\":{SLEEP_S}}}");
    let begun = Instant::now();
    let calls = clients.into_iter().map(|client| one(client, name, &event));
    let answers = join_all(calls).await;
    let took = begun.elapsed().as_secs_f64();
    Ok((took, answers.into_iter().filter(Result::is_ok).count()))
}

async fn one(mut client: Client, name: &str, event: &str) -> anyhow::Result<()> {
    client.invoke(name, event).await?.fine().map(drop)
}

/// Seconds that as many bare containers need until all of them said a byte.
async fn bare_starts(run: &Run, bare: &BareDocker) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for at_once in STARTS_AT_ONCE {
        let turns = Arc::new(Semaphore::new(at_once));
        let begun = Instant::now();
        let starts = (0..CONCURRENCY).map(|_| async {
            let turn = turns.acquire().await.context("no turn")?;
            let started = bare.start(run, Program::Worker(Language::Python)).await?;
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
