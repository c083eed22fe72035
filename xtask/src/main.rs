//! `cargo xtask tidy`: what formatting and lints do not see. `cargo xtask lines`: how long files
//! are.

mod tidy;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy::check(),
        Some("lines") => tidy::lines(),
        _ => bail!("usage: cargo xtask tidy | lines"),
    }
}
