//! Runs one pure part of the warm path so many times, for `cargo xtask instructions` to count its
//! instructions. Without arguments, names the parts.

mod parts;
mod registry;

use std::io::Write as _;

use anyhow::{Context as _, bail};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [part, rounds] = &arguments[..] else {
        let mut out = std::io::stdout();
        for (name, _) in parts::ALL {
            writeln!(out, "{name}")?;
        }
        return Ok(());
    };
    let Some((_, run)) = parts::ALL.iter().find(|(name, _)| name == part) else {
        bail!("there is no part `{part}`; without arguments, the parts are named");
    };
    let rounds = rounds.parse().with_context(|| format!("`{rounds}` is no number of rounds"))?;
    // One thread, and a runtime for all parts alike: what is set up costs the same for any number
    // of rounds, and is subtracted.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(rounds))
}
