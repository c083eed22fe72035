//! Large events, both ways: how near the ceiling, and what they cost the server in memory.

use crate::ceiling::Language;
use crate::client::Client;
use crate::cpu;
use crate::report::{Line, Target};
use crate::run::{Run, sources};
use crate::server::{Server, Settings};
use crate::warm::{self, Load};
use crate::wrk::{self, as_f64};

/// Below this the growth of memory says nothing of events.
const TOLD_BYTES_MIN: usize = 1 << 20;
/// Growth of the server's memory over the bytes of events and answers that are on their way.
const GROWTH_MAX: f64 = 1.5;

/// JSON of exactly so many bytes: one long text, so that what moves bytes is what is measured.
pub(super) fn event(bytes: usize) -> Vec<u8> {
    let (open, close) = (br#"{"data":""#, br#""}"#);
    let fill = bytes.saturating_sub(open.len() + close.len());
    [&open[..], &vec![b'x'; fill], close].concat()
}

pub(super) async fn run(
    row: &'static str,
    run: &Run,
    language: Language,
    (bytes, connections): (usize, u32),
) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(run, Settings::docker()).await?;
    let name = language.name();
    server.deploy(&sources().join("functions").join(format!("echo-{name}"))).await?;
    let function = format!("echo-large-{name}");
    let small = server.call(&function, b"{}")?;
    Client::once(&small).await?;
    wrk::run(run.dir(), &small, connections, 1).await?.unbroken()?;
    let (before, _) = cpu::memory_mb(server.pid())?;
    let event = event(bytes);
    let request = server.call(&function, &event)?;
    let load = Load { language, connections, event, memory_mb: 512 };
    let (pairs, best) = warm::in_turns(run, &server, &request, &load).await?;
    let (_, peak) = cpu::memory_mb(server.pid())?;
    let rate = Target::RatioAtLeast(0.6);
    let mut lines = vec![
        pairs
            .line((row, "requests/s"), "/s", |sample| sample.per_second, rate)
            .note(format!("{connections} connections; the ceiling's best: {best} workers")),
        pairs.line((row, "p50"), "us", |sample| sample.p50_us, Target::Told),
        pairs.line((row, "server CPU per call"), "us", |sample| sample.cpu_us, Target::Told),
    ];
    if TOLD_BYTES_MIN <= bytes {
        let flying = f64::from(connections) * 2.0 * as_f64(u64::try_from(bytes)?) / 1048576.0;
        lines.push(
            Line::new(row, "server memory / bytes in flight", "MB")
                .ours([peak - before])
                .ceiling([flying])
                .target(Target::RatioAtMost(GROWTH_MAX))
                .note(format!("RSS {before:.1} MB before, {peak:.1} MB at its peak")),
        );
    }
    lines.extend(warm::whole(row, &server).await?);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_event_has_exactly_the_bytes_that_were_asked_for() {
        let event = super::event(10_240);
        assert_eq!(event.len(), 10_240);
        serde_json::from_slice::<serde_json::Value>(&event).unwrap();
    }
}
