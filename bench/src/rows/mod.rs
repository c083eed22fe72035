//! The rows of the table, each a scenario.

mod accept_async;
mod axum_comparison;
mod cold_burst;
mod cold_starts;
mod frozen_calls;
mod generated_functions;
mod http_trigger;
mod hundred_functions;
mod idle_server;
mod large_bodies;
mod overload;
mod queue_drain;
mod small_beside_large;
mod ten_thousand_functions;
mod warm_go;
mod warm_sync;

use std::pin::Pin;

use crate::report::MeasuredFigure;
use crate::run::BenchRun;

type RowFuture<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Vec<MeasuredFigure>>> + 'a>>;

/// One scenario, with its name and description for `--list`.
pub(crate) struct BenchRow {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: for<'a> fn(&'a BenchRun) -> RowFuture<'a>,
}

macro_rules! row {
    ($name:literal, $about:literal, $run:expr) => {
        BenchRow { name: $name, about: $about, run: |run| Box::pin($run($name, run)) }
    };
}

/// All rows, in the order in which they run.
#[rustfmt::skip]
pub(crate) fn all() -> Vec<BenchRow> {
    use large_bodies::BodyLoad;

    use crate::ceiling::WorkerLanguage::{Node, Python};
    const KB10: BodyLoad = BodyLoad { bytes: 10 << 10, connections: 16 };
    const MB1: BodyLoad = BodyLoad { bytes: 1 << 20, connections: 4 };
    // Encoding may add some spaces, and an answer may have at most 6 MB, too.
    const MB6: BodyLoad = BodyLoad { bytes: (6 << 20) - 64, connections: 4 };
    vec![
        row!("sync_python_1", "warm native calls, Python in Docker, 100 B, 1 connection", |row, run| warm_sync::run(row, run, Python, 1)),
        row!("sync_python_16", "the same, 16 connections", |row, run| warm_sync::run(row, run, Python, 16)),
        row!("sync_python_64", "the same, 64 connections", |row, run| warm_sync::run(row, run, Python, 64)),
        row!("sync_node_1", "warm native calls, Node in Docker, 100 B, 1 connection", |row, run| warm_sync::run(row, run, Node, 1)),
        row!("sync_node_16", "the same, 16 connections", |row, run| warm_sync::run(row, run, Node, 16)),
        row!("sync_node_64", "the same, 64 connections", |row, run| warm_sync::run(row, run, Node, 64)),
        row!("hello", "a warm call against a bare axum hello", axum_comparison::run),
        row!("http_python_1", "through an HTTP trigger, its key checked, 1 connection", |row, run| http_trigger::run(row, run, Python, 1)),
        row!("http_python_16", "the same, 16 connections", |row, run| http_trigger::run(row, run, Python, 16)),
        row!("http_node_16", "the same, Node", |row, run| http_trigger::run(row, run, Node, 16)),
        row!("go_1", "Go over scf-go-lib's messages, warm, 1 connection", |row, run| warm_go::run(row, run, 1)),
        row!("go_16", "the same, 16 connections", |row, run| warm_go::run(row, run, 16)),
        row!("body_python_10k", "10 KB events, both ways, Python", |row, run| large_bodies::run(row, run, Python, KB10)),
        row!("body_python_1m", "1 MB events, both ways, Python", |row, run| large_bodies::run(row, run, Python, MB1)),
        row!("body_python_6m", "6 MB events, both ways, Python", |row, run| large_bodies::run(row, run, Python, MB6)),
        row!("body_node_10k", "10 KB events, both ways, Node", |row, run| large_bodies::run(row, run, Node, KB10)),
        row!("body_node_1m", "1 MB events, both ways, Node", |row, run| large_bodies::run(row, run, Node, MB1)),
        row!("body_node_6m", "6 MB events, both ways, Node", |row, run| large_bodies::run(row, run, Node, MB6)),
        row!("beside_6m", "a small function beside a stream of 6 MB calls", small_beside_large::run),
        row!("frozen", "calls that find their sandbox frozen", frozen_calls::run),
        row!("cold_prewarmed_python", "cold with a prewarmed sandbox ready, Python", |row, run| cold_starts::prewarmed(row, run, Python, 25.0)),
        row!("cold_prewarmed_node", "cold with a prewarmed sandbox ready, Node", |row, run| cold_starts::prewarmed(row, run, Node, 60.0)),
        row!("cold_docker_python", "cold without prewarmed sandboxes, Docker, Python", |row, run| cold_starts::docker(row, run, Python)),
        row!("cold_docker_node", "cold without prewarmed sandboxes, Docker, Node", |row, run| cold_starts::docker(row, run, Node)),
        row!("cold_process_python", "cold, process sandboxes, Python", |row, run| cold_starts::process(row, run, Python, 30.0)),
        row!("cold_process_node", "cold, process sandboxes, Node", |row, run| cold_starts::process(row, run, Node, 80.0)),
        row!("burst", "200 calls at once to a cold function of concurrency 20", cold_burst::run),
        row!("hundred", "100 functions in turn with memory for 20", hundred_functions::run),
        row!("overload", "2,000 calls/s offered to a function that does 400", overload::run),
        row!("accept_sqlite", "asynchronous calls accepted, 1 KB, embedded queue", accept_async::sqlite),
        row!("accept_redis", "asynchronous calls accepted, 1 KB, Redis", accept_async::redis),
        row!("drain", "queued events run, against synchronous calls", queue_drain::run),
        row!("many", "10,000 functions and timers", ten_thousand_functions::run),
        row!("idle", "a server that has nothing to do", idle_server::run),
    ]
}

/// Whether `name` has all words of `wanted`: `sync_1` selects every sync row with 1 connection.
pub(crate) fn is_selected(name: &str, wanted: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    wanted.split('_').all(|word| words.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_words_of_a_name() {
        assert!(is_selected("sync_python_1", "sync_1"));
        assert!(is_selected("sync_python_1", "sync_python_1"));
        assert!(!is_selected("sync_python_16", "sync_1"));
        assert!(!is_selected("overload", "over"));
    }

    #[test]
    fn rows_have_names_of_their_own() {
        let mut names: Vec<_> = all().iter().map(|row| row.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
