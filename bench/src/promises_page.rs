//! Updates the table of the latest figures in `docs/promises.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::report::{self, MeasuredFigure};

const BEGIN: &str = "<!-- begin: written by `make bench ARGS=--write-promises` -->\n";
const END: &str = "<!-- end -->";
const HEAD: &str = "| row | figure | promised | ours | ceiling | ratio (spread) | reached | measured |\n\
                    |---|---|---|---|---|---|---|---|\n";
/// Columns that identify a line: row and figure.
const NAMED_BY: usize = 2;

/// Replaces older figures of the measured rows by those of this run. Rows that were not measured
/// stay; figures without a target are not written.
///
/// # Errors
/// If the file is missing or has no marked table.
pub(crate) fn write(file: &Path, lines: &[MeasuredFigure], date: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let new: Vec<String> = lines
        .iter()
        .filter(|line| line.reached().is_some() || line.error.is_some())
        .map(|line| row(line, date))
        .collect();
    fs::write(file, renewed(&text, &new)?)?;
    Ok(())
}

fn row(line: &MeasuredFigure, date: &str) -> String {
    if let Some(error) = &line.error {
        let error = error.replace(['\n', '|'], " ");
        return format!("| `{}` | {} | | | | | ERROR: {error} | {date} |", line.row, line.figure);
    }
    let [row, figure, ours, ceiling, ratio, spread, target, reached] = report::cells(line);
    let ratio = match (ratio.as_str(), spread.as_str()) {
        ("-", "-") => String::new(),
        ("-", spread) => format!("({spread})"),
        (ratio, "-") => ratio.to_owned(),
        (ratio, spread) => format!("{ratio} ({spread})"),
    };
    let ceiling = if ceiling == "-" { String::new() } else { ceiling };
    format!("| `{row}` | {figure} | {target} | {ours} | {ceiling} | {ratio} | {reached} | {date} |")
}

fn renewed(text: &str, new: &[String]) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(BEGIN).context("the table's begin is not marked")?;
    let (table, after) = rest.split_once(END).context("the table's end is not marked")?;
    let old: Vec<&str> = table.lines().skip(2).filter(|line| line.starts_with('|')).collect();
    let measured = |row: &str| new.iter().any(|line| name(line).next() == name(row).next());
    let mut out = format!("{before}{BEGIN}{HEAD}");
    let mut written = Vec::new();
    for line in old {
        // A measured row is replaced as a whole, at the place of its first line.
        let lines: Vec<&str> = if measured(line) {
            let same = |other: &&String| name(other).next() == name(line).next();
            new.iter().filter(same).map(String::as_str).collect()
        } else {
            vec![line]
        };
        for line in lines {
            let key: Vec<&str> = name(line).collect();
            if !written.contains(&key) {
                writeln!(out, "{line}")?;
                written.push(key);
            }
        }
    }
    for line in new {
        let key: Vec<&str> = name(line).collect();
        ensure!(key.len() == NAMED_BY, "a line without a name: {line}");
        if !written.contains(&key) {
            writeln!(out, "{line}")?;
            written.push(key);
        }
    }
    out.push_str(END);
    out.push_str(after);
    Ok(out)
}

fn name(line: &str) -> impl Iterator<Item = &str> {
    line.split('|').skip(1).take(NAMED_BY).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PromiseTarget;

    #[test]
    fn a_row_that_was_measured_again_is_replaced_and_others_stay() {
        let old = format!(
            "# Promises\n{BEGIN}{HEAD}| `a` | p50 | x | 1 |\n| `a` | not measured | y |\n\
             | `b` | p50 | x | 1 |\n{END}\nmore\n"
        );
        let line =
            MeasuredFigure::new("a", "p50", "ms").ours([7.0]).target(PromiseTarget::AtMost(9.0));
        let without_target = MeasuredFigure::new("c", "p50", "ms").ours([7.0]);
        let new: Vec<String> = [line, without_target]
            .iter()
            .filter(|line| line.reached().is_some())
            .map(|line| row(line, "2026-01-31"))
            .collect();
        let text = renewed(&old, &new).unwrap();
        let expected = format!(
            "# Promises\n{BEGIN}{HEAD}| `a` | p50 | <= 9 ms | 7.000 ms |  |  | yes | 2026-01-31 |\n\
             | `b` | p50 | x | 1 |\n{END}\nmore\n"
        );
        assert_eq!(text, expected);
        assert_eq!(renewed(&text, &new).unwrap(), expected);
    }
}
