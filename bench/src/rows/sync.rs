//! Warm calls by the native API: Python and Node in Docker, 100 B in and out.

use crate::ceiling::Language;
use crate::report::{Line, Target};
use crate::run::{Run, sources};
use crate::server::{Server, Settings};
use crate::warm::{self, Load};
use crate::wrk::as_f64;

/// 100 bytes.
pub(super) const EVENT: &[u8] = br#"{"name":"world","number":17,"list":[1,2,3],"nested":{"key":"value"},"text":"some words to fill it."}"#;

pub(super) async fn run(
    row: &'static str,
    run: &Run,
    language: Language,
    connections: u32,
) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(run, Settings::docker()).await?;
    let name = format!("echo-{}", language.name());
    server.deploy(&sources().join("functions").join(&name)).await?;
    let request = server.call(&name, EVENT)?;
    let load = Load { language, connections, event: EVENT.to_vec(), memory_mb: 128 };
    let (pairs, best) = warm::in_turns(run, &server, &request, &load).await?;
    let rate = Target::RatioAtLeast(0.6);
    let mut lines = vec![
        pairs
            .line((row, "requests/s"), "/s", |sample| sample.per_second, rate)
            .note(format!("the ceiling served best with {best} workers")),
    ];
    if connections == 1 {
        let p50 = Target::RatioAtMost(1.7);
        let cpu = Target::RatioAtMost(1.8);
        lines.push(pairs.line((row, "p50"), "us", |sample| sample.p50_us, p50));
        lines.push(pairs.line((row, "server CPU per call"), "us", |sample| sample.cpu_us, cpu));
    } else {
        let tail = Target::RatioAtMost(1.5);
        lines.push(pairs.line((row, "p99/p50"), "", warm::tail, tail));
        lines.push(pairs.line((row, "p50"), "us", |sample| sample.p50_us, Target::Told));
        lines.push(pairs.line(
            (row, "server CPU per call"),
            "us",
            |sample| sample.cpu_us,
            Target::Told,
        ));
    }
    lines.push(sandboxes(row, &server).await?);
    lines.extend(warm::whole(row, &server).await?);
    Ok(lines)
}

/// The function has no `concurrency` of its own, so twice the cores is the bound.
async fn sandboxes(row: &'static str, server: &Server) -> anyhow::Result<Line> {
    let cores = as_f64(u64::try_from(std::thread::available_parallelism()?.get())?);
    let started = server.metrics().await?.started();
    Ok(Line::new(row, "sandboxes started", "").ours([started]).target(Target::AtMost(2.0 * cores)))
}
