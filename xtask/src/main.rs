//! `cargo xtask tidy`: what formatting and lints do not see. `cargo xtask lines`: how long files
//! are. `cargo xtask instructions`: how much the warm path's parts take. `cargo xtask suite`: every
//! test, side by side.

mod dialect;
mod doc_comments;
mod instructions;
mod rust_source;
mod suite;
mod tidy;
mod type_names;

use anyhow::bail;
use instructions::OnChange;

fn main() -> anyhow::Result<()> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["tidy"] => tidy::check(),
        ["lines"] => tidy::lines(),
        ["instructions"] => instructions::run(OnChange::Compare),
        ["instructions", "--write"] => instructions::run(OnChange::Write),
        ["suite", ref rest @ ..] => suite::run(&suite::SuiteOptions::read(rest)?),
        _ => bail!("usage: cargo xtask tidy | lines | instructions [--write] | suite [WORD…]"),
    }
}
