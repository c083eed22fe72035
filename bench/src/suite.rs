//! Runs the chosen rows one after the other and reports their figures.

use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::BenchArgs;
use crate::ceiling;
use crate::docker_cli;
use crate::promises_page;
use crate::report::{self, MeasuredFigure};
use crate::rows::{self, BenchRow};
use crate::run::{self, BenchRun, MeasureSettings};

/// Runs the chosen rows, prints the table and writes the file.
///
/// # Errors
/// If nothing can be measured at all. A row that fails is reported in the table.
pub(crate) async fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let rows = chosen_rows(args)?;
    let mut out = io::stdout();
    if args.list {
        for row in rows {
            writeln!(out, "{:<20} {}", row.name, row.about)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let program = args
        .hanshu
        .canonicalize()
        .with_context(|| format!("{}: build it with `make release`", args.hanshu.display()))?;
    let measure = MeasureSettings {
        repeats: if args.quick { 1 } else { args.repeats },
        seconds: if args.quick { 1 } else { args.seconds },
        quick: args.quick,
    };
    let run = BenchRun::new(program, measure)?;
    let began = Instant::now();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut figures = Vec::new();
    let stopped = tokio::select! {
        () = run_rows(&run, &rows, &mut figures) => false,
        _ = interrupted.recv() => true,
        _ = terminated.recv() => true,
    };
    write!(out, "\n{}", report::table(&figures))?;
    let machine = machine();
    writeln!(out, "{machine}; {} s in all", began.elapsed().as_secs())?;
    let file = write_file(args, &machine, &figures)?;
    writeln!(out, "written to {file}")?;
    ensure!(!stopped, "stopped; what was started is removed, the table holds what was measured");
    if args.write_promises {
        let file = run::crate_dir().join("../docs/promises.md");
        promises_page::write(&file, &figures, &run::now().strftime("%Y-%m-%d").to_string())?;
    }
    let failed = figures.iter().any(|figure| figure.error.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen_rows(args: &BenchArgs) -> anyhow::Result<Vec<BenchRow>> {
    let mut rows = rows::all();
    for wanted in &args.rows {
        let known = rows.iter().any(|row| rows::is_selected(row.name, wanted));
        ensure!(known, "no row is selected by `{wanted}`: see --list");
    }
    if !args.rows.is_empty() {
        rows.retain(|row| args.rows.iter().any(|wanted| rows::is_selected(row.name, wanted)));
    }
    Ok(rows)
}

/// Appends to `figures` row by row, so that an interrupted run keeps what was measured.
async fn run_rows(run: &BenchRun, rows: &[BenchRow], figures: &mut Vec<MeasuredFigure>) {
    for row in rows {
        let began = Instant::now();
        let done = (row.run)(run).await;
        let error = match &done {
            Ok(_) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        // Progress goes to standard error, the table to standard output.
        drop(writeln!(io::stderr(), "{} {:.0} s{error}", row.name, began.elapsed().as_secs_f64()));
        let begin = figures.len();
        match done {
            Ok(more) => figures.extend(more),
            Err(error) => figures.push(MeasuredFigure::failed(row.name, &error)),
        }
        for figure in figures.iter().skip(begin).filter(|figure| figure.error.is_none()) {
            drop(writeln!(io::stderr(), "    {}", report::brief(figure)));
        }
        docker_cli::remove_labelled(&format!("{}={}", ceiling::LABEL, std::process::id()));
    }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("commit {}, {cores} cores, load {load}", commit.unwrap_or_default())
}

fn write_file(
    args: &BenchArgs,
    machine: &str,
    figures: &[MeasuredFigure],
) -> anyhow::Result<String> {
    let now = run::now();
    fs::create_dir_all(&args.out)?;
    let file = args.out.join(format!("{}.json", now.strftime("%Y-%m-%dT%H-%M-%SZ")));
    let figures: Vec<_> = figures
        .iter()
        .map(|figure| {
            json!({
                "line": figure,
                "ratio": report::median(&figure.ratios()),
                "reached": figure.reached(),
            })
        })
        .collect();
    let all = json!({ "at": now.to_string(), "machine": machine, "lines": figures });
    fs::write(&file, serde_json::to_vec_pretty(&all)?)?;
    Ok(file.display().to_string())
}
