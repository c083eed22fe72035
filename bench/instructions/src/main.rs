//! Runs one pure part of the warm path a given number of times, so that `cargo xtask instructions`
//! can count its instructions. Without arguments it lists the parts.

mod fixed_registry;
mod measured_parts;

use std::io::Write as _;

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [part, rounds] = &arguments[..] else {
        let mut out = std::io::stdout();
        for (name, _) in measured_parts::ALL {
            writeln!(out, "{name}")?;
        }
        return Ok(());
    };
    let Some((_, run)) = measured_parts::ALL.iter().find(|(name, _)| name == part) else {
        bail!("there is no part `{part}`; run without arguments for a list");
    };
    let rounds = rounds.parse().with_context(|| format!("`{rounds}` is no number of rounds"))?;
    // One thread and the same runtime for all parts: the setup costs the same for any number of
    // rounds and is subtracted.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(rounds))
}
