//! The run as a whole: which rows, one after the other, and what is said of them.

use std::fs;
use std::io::{self, Write as _};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::ceiling;
use crate::docker;
use crate::promises;
use crate::report::{self, Line};
use crate::rows::{self, Row};
use crate::run::{self, Measure, Run};

/// Runs what was asked for, prints the table and writes the file.
///
/// # Errors
/// Where nothing can be measured at all. A row that fails is in the table.
pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let rows = chosen(args)?;
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
    let measure = Measure {
        repeats: if args.quick { 1 } else { args.repeats },
        seconds: if args.quick { 1 } else { args.seconds },
        quick: args.quick,
    };
    let run = Run::new(program, measure)?;
    let began = Instant::now();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut lines = Vec::new();
    let stopped = tokio::select! {
        () = measure_all(&run, &rows, &mut lines) => false,
        _ = interrupted.recv() => true,
        _ = terminated.recv() => true,
    };
    write!(out, "\n{}", report::table(&lines))?;
    let machine = machine();
    writeln!(out, "{machine}; {} s in all", began.elapsed().as_secs())?;
    let file = write_file(args, &machine, &lines)?;
    writeln!(out, "written to {file}")?;
    ensure!(!stopped, "stopped; what was started is removed, the table holds what was measured");
    if args.write_promises {
        let file = run::sources().join("../docs/promises.md");
        promises::write(&file, &lines, &run::now().strftime("%Y-%m-%d").to_string())?;
    }
    let failed = lines.iter().any(|line| line.error.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut rows = rows::all();
    for wanted in &args.rows {
        let known = rows.iter().any(|row| rows::is_meant(row.name, wanted));
        ensure!(known, "no row is meant by `{wanted}`: see --list");
    }
    if !args.rows.is_empty() {
        rows.retain(|row| args.rows.iter().any(|wanted| rows::is_meant(row.name, wanted)));
    }
    Ok(rows)
}

/// One row after the other; what was measured stays in `lines` where it is stopped.
async fn measure_all(run: &Run, rows: &[Row], lines: &mut Vec<Line>) {
    for row in rows {
        let began = Instant::now();
        let done = (row.run)(run).await;
        let said = match &done {
            Ok(_) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        // Talk goes to standard error, the table to standard output.
        drop(writeln!(io::stderr(), "{} {:.0} s{said}", row.name, began.elapsed().as_secs_f64()));
        let begin = lines.len();
        match done {
            Ok(more) => lines.extend(more),
            Err(error) => lines.push(Line::failed(row.name, &error)),
        }
        for line in lines.iter().skip(begin).filter(|line| line.error.is_none()) {
            drop(writeln!(io::stderr(), "    {}", report::brief(line)));
        }
        docker::remove_labelled(&format!("{}={}", ceiling::LABEL, std::process::id()));
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

fn write_file(args: &Args, machine: &str, lines: &[Line]) -> anyhow::Result<String> {
    let now = run::now();
    fs::create_dir_all(&args.out)?;
    let file = args.out.join(format!("{}.json", now.strftime("%Y-%m-%dT%H-%M-%SZ")));
    let lines: Vec<_> = lines
        .iter()
        .map(|line| {
            json!({
                "line": line,
                "ratio": report::median(&line.ratios()),
                "reached": line.reached(),
            })
        })
        .collect();
    let all = json!({ "at": now.to_string(), "machine": machine, "lines": lines });
    fs::write(&file, serde_json::to_vec_pretty(&all)?)?;
    Ok(file.display().to_string())
}
