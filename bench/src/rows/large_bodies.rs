//! Large events and answers: the rate against the ceiling, and the server's memory.

use crate::ceiling::WorkerLanguage;
use crate::client::BenchClient;
use crate::process_stats;
use crate::report::{MeasuredFigure, PromiseTarget};
use crate::run::{BenchRun, crate_dir};
use crate::server::{BenchServer, BenchServerSettings};
use crate::warm_calls::{self, WarmLoad};
use crate::wrk::{self, as_f64};

/// For smaller events the growth of memory is not measured.
const GROWTH_BYTES_MIN: usize = 1 << 20;
/// Most growth of the server's memory, as a multiple of the bytes in flight.
const GROWTH_MAX: f64 = 1.5;

/// JSON of exactly this many bytes: one long string, so that little is spent on parsing.
pub(super) fn event(bytes: usize) -> Vec<u8> {
    let (open, close) = (br#"{"data":""#, br#""}"#);
    let fill = bytes.saturating_sub(open.len() + close.len());
    [&open[..], &vec![b'x'; fill], close].concat()
}

/// The size of the events, and how many are in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLoad {
    pub(super) bytes: usize,
    pub(super) connections: u32,
}

pub(super) async fn run(
    row: &'static str,
    run: &BenchRun,
    language: WorkerLanguage,
    load: BodyLoad,
) -> anyhow::Result<Vec<MeasuredFigure>> {
    let BodyLoad { bytes, connections } = load;
    let server = BenchServer::start(run, BenchServerSettings::docker()).await?;
    let name = language.name();
    server.deploy(&crate_dir().join("functions").join(format!("echo-{name}"))).await?;
    let function = format!("echo-large-{name}");
    let small = server.call(&function, b"{}")?;
    BenchClient::once(&small).await?;
    wrk::run(run.dir(), &small, connections, 1).await?.expect_no_errors()?;
    let before = process_stats::resident_memory(server.pid())?.now_mb;
    let event = event(bytes);
    let request = server.call(&function, &event)?;
    let load = WarmLoad { language, connections, event, memory_mb: 512 };
    let (pairs, best_workers) = warm_calls::measure_in_turns(run, &server, &request, &load).await?;
    let peak = process_stats::resident_memory(server.pid())?.peak_mb;
    let mut figures = vec![
        pairs.rate(row).target(PromiseTarget::RatioAtLeast(0.6)).note(format!(
            "{connections} connections; the ceiling served best with {best_workers} workers"
        )),
        pairs.p50(row),
        pairs.cpu(row),
    ];
    if GROWTH_BYTES_MIN <= bytes {
        let in_flight_mb = f64::from(connections) * 2.0 * as_f64(u64::try_from(bytes)?) / 1048576.0;
        figures.push(
            MeasuredFigure::new(row, "server memory / bytes in flight", "MB")
                .ours([peak - before])
                .ceiling([in_flight_mb])
                .target(PromiseTarget::RatioAtMost(GROWTH_MAX))
                .note(format!("RSS {before:.1} MB before, {peak:.1} MB at its peak")),
        );
    }
    figures.extend(warm_calls::server_figures(row, &server).await?);
    Ok(figures)
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
