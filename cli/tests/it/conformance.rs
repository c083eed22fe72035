//! Conformance: what every function may rely on, as `runtimes/conformance/cases.json` has it. Every
//! case runs in every language that it names, on both backends, over a server of its own.

mod calls;
mod check;
mod data;
mod functions;
mod machine;
mod run;

use std::fmt::Write as _;
use std::time::Instant;

use futures_util::StreamExt as _;
use tokio::sync::RwLock;

use crate::world::World;
use calls::Caller;
use data::{Case, Suite};
use functions::Functions;
use machine::Listener;
use run::Stage;

/// Languages at a time, of each backend.
const LANGUAGES_AT_ONCE: usize = 2;

/// A case that was run, and what was wrong.
struct Run<'a> {
    case: &'a str,
    language: &'a str,
    faults: Vec<String>,
}

#[tokio::test]
async fn on_process_sandboxes() {
    conforms("process").await;
}

#[tokio::test]
async fn on_docker() {
    conforms("docker").await;
}

async fn conforms(backend: &str) {
    let suite = Suite::load();
    let wanted = |case: &&Case| case.is_of(backend) && is_chosen(&case.name);
    let cases: Vec<_> = suite.cases.iter().filter(wanted).collect();
    let world = World::start(backend);
    let begun = Instant::now();
    let functions = Functions::deploy(&world, &suite, backend);
    let deployed = begun.elapsed();
    let listener = Listener::open();
    let caller = Caller { world: &world, backend, listener: &listener };
    let stage = Stage { caller, suite: &suite, functions: &functions, measured: RwLock::new(()) };
    let languages = suite.languages.keys().map(|language| {
        let mine = cases.iter().filter(|case| case.languages.contains(language));
        run_all(&stage, mine.copied(), language)
    });
    let runs: Vec<Run<'_>> =
        futures_util::stream::iter(languages).buffer_unordered(LANGUAGES_AT_ONCE).concat().await;
    println!("{}", table(backend, &suite, &cases, &runs));
    println!("{backend}: deployed in {deployed:.1?}, all in {:.1?}", begun.elapsed());
    let due: usize = cases.iter().map(|case| case.languages.len()).sum();
    assert_eq!(runs.len(), due, "not everything was run");
    let failures: Vec<_> = runs.iter().filter(|run| !run.faults.is_empty()).map(shown).collect();
    assert!(failures.is_empty(), "{backend}: {} failed\n{}", failures.len(), failures.join("\n"));
}

/// All, or those whose names have a part that somebody who looks for a fault asked for.
fn is_chosen(name: &str) -> bool {
    std::env::var("CONFORMANCE_ONLY")
        .map_or(true, |parts| parts.split(',').any(|part| name.contains(part)))
}

async fn run_all<'a>(
    stage: &Stage<'_>,
    cases: impl Iterator<Item = &'a Case>,
    language: &'a str,
) -> Vec<Run<'a>> {
    let mut runs = Vec::new();
    for case in cases {
        let begun = Instant::now();
        let faults = stage.run(case, language).await;
        let took = begun.elapsed();
        println!(
            "{language:9} {:36} {took:8.1?} {}",
            case.name,
            if faults.is_empty() { "" } else { "FAILED" }
        );
        runs.push(Run { case: &case.name, language, faults });
    }
    runs
}

fn shown(run: &Run<'_>) -> String {
    format!("{} in {}: {}", run.case, run.language, run.faults.join("\n    "))
}

/// Cases by languages: what was run, what failed, what a language does not have.
fn table(backend: &str, suite: &Suite, cases: &[&Case], runs: &[Run<'_>]) -> String {
    let mut text = format!("{backend:36}");
    for language in suite.languages.keys() {
        let _ = write!(text, " {language:>9}");
    }
    for case in cases {
        let _ = write!(text, "\n{:36}", case.name);
        for language in suite.languages.keys() {
            let run = runs.iter().find(|run| run.case == case.name && run.language == language);
            let cell = match run.map(|run| run.faults.is_empty()) {
                Some(true) => "ok",
                Some(false) => "FAILED",
                None => "-",
            };
            let _ = write!(text, " {cell:>9}");
        }
    }
    let count = |failed: bool, language: &str| {
        let mine = runs.iter().filter(|run| run.language == language);
        mine.filter(|run| !failed || !run.faults.is_empty()).count()
    };
    for (label, failed) in [("run", false), ("failed", true)] {
        let _ = write!(text, "\n{label:36}");
        for language in suite.languages.keys() {
            let _ = write!(text, " {:>9}", count(failed, language));
        }
    }
    text
}
