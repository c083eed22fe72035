//! The command line of the benchmark program.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  make bench                                  # every row, about 15 minutes
  make bench ROWS=\"sync_1 overload\"           # rows whose names have these words
  make bench ARGS=\"--quick\"                   # every row, about 5 minutes: fewer and shorter
  cargo run --release -p hanshu-bench -- sync_python --repeats 5 --seconds 5
  cargo run --release -p hanshu-bench -- --list
  make bench ARGS=\"--write-promises\"        # and docs/promises.md gets the figures

Exit status: 0 when everything was measured, reached or not; 1 when a figure could not be had;
2 for a command line that is wrong.";

/// Measures hanshu and the ceilings of the machine alternately in one run.
#[derive(Debug, Parser)]
#[command(name = "hanshu-bench", version, after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) part: Option<BenchHelper>,
    /// Rows whose names have these words, such as `sync_1`; all rows where none are given
    pub(crate) rows: Vec<String>,
    /// List the rows and exit
    #[arg(long)]
    pub(crate) list: bool,
    /// Repetitions of each measurement, of hanshu and the ceiling alternately
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repeats: u32,
    /// Seconds of each timed load
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// One repetition of one second, and fewer samples: to see that everything works
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write the figures into docs/promises.md
    #[arg(long)]
    pub(crate) write_promises: bool,
    /// The program under test
    #[arg(long, default_value = "target/release/hanshu")]
    pub(crate) hanshu: PathBuf,
    /// Where the figures are written as JSON
    #[arg(long, default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

/// Helper processes that this program starts itself as; internal.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchHelper {
    #[command(hide = true)]
    Front {
        #[arg(long)]
        socket: PathBuf,
    },
    #[command(hide = true)]
    Hello,
}
