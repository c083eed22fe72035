//! `hanshu-soak`: mixed load on two servers, one with everything inside and one on PostgreSQL and
//! Redis, while from a seed everything around them breaks. Then it checks that nothing accepted
//! was lost, nothing ran that must not, and nothing is left over.

mod cage;
mod checks;
mod chronicle;
mod collector;
mod field;
mod functions;
mod groups;
mod http;
mod ledger;
mod load;
mod plan;
mod report;
mod samples;
mod services;
mod settle;
mod soak;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Load and bad luck from a seed against hanshu, and what must hold afterwards.
#[derive(Debug, Parser)]
#[command(name = "hanshu-soak")]
struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The whole soak, as root.
    Run(Options),
    /// The cage's first process. Not for people.
    #[command(hide = true)]
    First(Options),
    /// The soak within the cage. Not for people.
    #[command(hide = true)]
    Caged(Options),
}

/// What is soaked, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The program under test.
    #[arg(long, default_value = "target/release/hanshu")]
    hanshu: PathBuf,
    /// How long the load lasts: 60s, 10m, 1h.
    #[arg(long, default_value = "10m", value_parser = length)]
    length: Duration,
    /// Which faults, and when; a new one each time if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep logs and data after a run that failed.
    #[arg(long)]
    keep: bool,
    /// Where everything is put. Not for people.
    #[arg(long, hide = true)]
    work: Option<PathBuf>,
}

/// Shortest load: every kind of fault has its time.
const LENGTH_MIN: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let done = match Args::parse().part {
        Part::Run(options) => run(options),
        Part::First(options) => first(&options),
        Part::Caged(options) => in_runtime(soak::soak(options)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Gets from the user's Docker engine what the cage has no network for, then goes in.
fn run(mut options: Options) -> anyhow::Result<u8> {
    cage::check_root()?;
    options.hanshu = options
        .hanshu
        .canonicalize()
        .with_context(|| format!("{}: build it first: make release", options.hanshu.display()))?;
    options.seed = options.seed.or_else(|| Some(rand::random_range(0..1_000_000)));
    let work = tempfile::Builder::new().prefix("hanshu-soak-").tempdir()?.keep();
    // A copy: whoever builds meanwhile does not change what is soaked.
    let program = work.join("hanshu");
    std::fs::copy(&options.hanshu, &program).context("a copy of the program")?;
    options.hanshu = program;
    let prepared = in_runtime(images(&options.hanshu, &work));
    if let Err(error) = prepared {
        let _ = std::fs::remove_dir_all(&work);
        return Err(error);
    }
    options.work = Some(work);
    cage::enter(&arguments("first", &options)).map(|()| 2)
}

fn first(options: &Options) -> anyhow::Result<u8> {
    let work = options.work.as_ref().context("the cage was entered without a folder")?;
    cage::first_process(&arguments("caged", options), work, options.keep)
}

async fn images(program: &Path, work: &Path) -> anyhow::Result<u8> {
    let preparing = work.join("preparing");
    services::make_image(program, &preparing).await?;
    services::save("hanshu/python", &work.join("images.tar")).await?;
    std::fs::remove_dir_all(preparing)?;
    Ok(0)
}

fn in_runtime(work: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    // Some threads look at folders: the collector answers all the same.
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    threads?.block_on(work)
}

/// The arguments that give `part` the same options.
fn arguments(part: &str, options: &Options) -> Vec<String> {
    let mut args = vec![part.to_owned()];
    args.push(format!("--hanshu={}", options.hanshu.display()));
    args.push(format!("--length={}s", options.length.as_secs()));
    args.extend(options.seed.map(|seed| format!("--seed={seed}")));
    args.extend(options.work.as_ref().map(|work| format!("--work={}", work.display())));
    args.extend(options.keep.then(|| "--keep".to_owned()));
    args
}

/// `90s`, `10m`, `1h`.
fn length(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}`: expected a length such as 60s, 10m or 1h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let number = text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return Err(wrong()),
    };
    let length = Duration::from_secs(number.ok_or_else(wrong)?.saturating_mul(seconds));
    if length < LENGTH_MIN || Duration::from_secs(7 * 24 * 3_600) < length {
        return Err(format!("`{text}`: expected {} s to a week", LENGTH_MIN.as_secs()));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_a_unit_and_a_bound() {
        assert_eq!(length("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(length("1h"), Ok(Duration::from_secs(3_600)));
        for wrong in ["", "1", "s", "-1s", "5s", "1000h", "1é"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }
}
