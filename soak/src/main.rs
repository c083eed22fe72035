//! `hanshu-soak`: mixed load on two servers, one on SQLite and one on PostgreSQL and Redis, while
//! faults chosen from a seed are injected. Then it checks that no accepted event was lost, nothing
//! ran that must not, and nothing is left behind.

mod cgroups;
mod cleanup_checks;
mod collector;
mod event_log;
mod fault_plan;
mod http_client;
mod load;
mod namespaces;
mod report;
mod resource_usage;
mod run_checks;
mod run_ledger;
mod services;
mod soak;
mod test_function;
mod testbed;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// Load and faults from a seed against hanshu, and checks of what must hold.
#[derive(Debug, Parser)]
#[command(name = "hanshu-soak")]
struct SoakArgs {
    #[command(subcommand)]
    command: SoakCommand,
}

#[derive(Debug, Subcommand)]
enum SoakCommand {
    /// Run a soak, as root.
    Run(SoakOptions),
    /// The init process of the namespaces; internal.
    #[command(hide = true)]
    Init(SoakOptions),
    /// The soak inside the namespaces; internal.
    #[command(hide = true)]
    Isolated(SoakOptions),
}

/// What to run, for how long, from which seed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SoakOptions {
    /// The program to test.
    #[arg(long, default_value = "target/release/hanshu")]
    hanshu: PathBuf,
    /// How long the load lasts: 60s, 10m, 1h.
    #[arg(long, default_value = "10m", value_parser = length)]
    length: Duration,
    /// Seed of the fault plan; random if absent.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep logs and data if the soak fails.
    #[arg(long)]
    keep: bool,
    /// Working folder; internal.
    #[arg(long, hide = true)]
    work: Option<PathBuf>,
}

/// Shortest load in which every kind of fault occurs.
const LENGTH_MIN: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let done = match SoakArgs::parse().command {
        SoakCommand::Run(options) => run(options),
        SoakCommand::Init(options) => init(&options),
        SoakCommand::Isolated(options) => in_runtime(soak::soak(options)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Copies the images that the namespaces have no network for, then enters them.
fn run(mut options: SoakOptions) -> anyhow::Result<u8> {
    namespaces::check_root()?;
    options.hanshu = options
        .hanshu
        .canonicalize()
        .with_context(|| format!("{}: build it first: make release", options.hanshu.display()))?;
    options.seed = options.seed.or_else(|| Some(rand::random_range(0..1_000_000)));
    let work = tempfile::Builder::new().prefix("hanshu-soak-").tempdir()?.keep();
    // A copy: a build meanwhile must not change what is tested.
    let program = work.join("hanshu");
    std::fs::copy(&options.hanshu, &program).context("a copy of the program")?;
    options.hanshu = program;
    let prepared = in_runtime(images(&options.hanshu, &work));
    if let Err(error) = prepared {
        let _ = std::fs::remove_dir_all(&work);
        return Err(error);
    }
    options.work = Some(work);
    namespaces::enter(&arguments("init", &options)).map(|()| 2)
}

fn init(options: &SoakOptions) -> anyhow::Result<u8> {
    let work = options.work.as_ref().context("--work is missing")?;
    namespaces::init_process(&arguments("isolated", options), work, options.keep)
}

async fn images(program: &Path, work: &Path) -> anyhow::Result<u8> {
    let preparing = work.join("preparing");
    services::make_image(program, &preparing).await?;
    services::save("hanshu/python", &work.join("images.tar")).await?;
    std::fs::remove_dir_all(preparing)?;
    Ok(0)
}

fn in_runtime(work: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    // Some threads block on files; the collector must answer all the same.
    let threads =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    threads?.block_on(work)
}

/// The arguments that pass these options on to another subcommand.
fn arguments(command: &str, options: &SoakOptions) -> Vec<String> {
    let mut args = vec![command.to_owned()];
    args.push(format!("--hanshu={}", options.hanshu.display()));
    args.push(format!("--length={}s", options.length.as_secs()));
    args.extend(options.seed.map(|seed| format!("--seed={seed}")));
    args.extend(options.work.as_ref().map(|work| format!("--work={}", work.display())));
    args.extend(options.keep.then(|| "--keep".to_owned()));
    args
}

/// Parses `90s`, `10m`, `1h`.
fn length(text: &str) -> Result<Duration, String> {
    let invalid = || format!("`{text}`: expected a length such as 60s, 10m or 1h");
    let unit = text.chars().last().ok_or_else(invalid)?;
    let number = text.strip_suffix(unit).and_then(|number| number.parse::<u64>().ok());
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return Err(invalid()),
    };
    let length = Duration::from_secs(number.ok_or_else(invalid)?.saturating_mul(seconds));
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
        for invalid in ["", "1", "s", "-1s", "5s", "1000h", "1é"] {
            assert!(length(invalid).is_err(), "{invalid}");
        }
    }
}
