//! `cargo xtask instructions`: how many instructions the warm path's pure parts take, under
//! callgrind, where neighbours cannot disturb. Compared with `bench/instructions.toml`; a rise of
//! more than a tenth needs a line in the changelog:
//!
//! ```text
//! - instructions: pool_decision +14 %: why it is worth it
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// The counts that are kept.
const KEPT: &str = "bench/instructions.toml";
const CHANGELOG: &str = "CHANGELOG.md";
const PACKAGE: &str = "hanshu-instructions";
/// As released, but without optimising the whole program at once, which takes minutes.
const PROFILE: &str = "instructions";
/// A part runs so often, and then so often: what is set up is in both, and is subtracted.
const ROUNDS: (u64, u64) = (400, 2_400);
/// The rise, in percent, that needs no reason.
const RISE_MAX: f64 = 10.0;

/// Whether to keep what was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnChange {
    Compare,
    Write,
}

/// Counts, compares and prints.
///
/// # Errors
/// A part rose without a reason, is new or gone, or could not be counted.
pub(crate) fn run(on_change: OnChange) -> anyhow::Result<()> {
    let program = build()?;
    let kept = read_kept()?;
    let counted = count_all(Path::new(&program))?;
    let reasons = reasons(&fs::read_to_string(CHANGELOG).context(CHANGELOG)?);
    let (table, mut wrong) = compare(&kept, &counted, &reasons);
    std::io::stdout().write_all(table.as_bytes())?;
    if on_change == OnChange::Write {
        // What is new or gone is what is to be written; a rise is not written away.
        wrong.retain(|each| matches!(each, CountFault::Rose { .. }));
    }
    if !wrong.is_empty() {
        let lines: Vec<_> = wrong.iter().map(CountFault::to_string).collect();
        bail!("instructions:\n  {}", lines.join("\n  "));
    }
    if on_change == OnChange::Write {
        write_kept(&counted)?;
    }
    Ok(())
}

/// What is wrong with a part's count.
#[derive(Debug, PartialEq)]
enum CountFault {
    Rose { part: String, percent: f64 },
    New(String),
    Gone(String),
}

impl std::fmt::Display for CountFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rose { part, percent } => write!(
                f,
                "`{part}` takes {percent:.1} % more instructions than {KEPT} says: make it less, \
                 or put a line under Unreleased in {CHANGELOG}: `- instructions: {part} +{:.0} %: \
                 WHY`",
                percent.ceil()
            ),
            Self::New(part) => {
                write!(f, "`{part}` is not in {KEPT}: `scripts/instructions --write` adds it")
            }
            Self::Gone(part) => {
                write!(f, "`{part}` is no part: `scripts/instructions --write` removes it")
            }
        }
    }
}

fn build() -> anyhow::Result<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = [
        "build",
        "--locked",
        "--quiet",
        "--profile",
        PROFILE,
        "-p",
        PACKAGE,
        "--message-format=json",
    ];
    let built = Command::new(cargo)
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo build")?;
    ensure!(built.status.success(), "{PACKAGE} could not be built");
    // The last program that cargo names is the one that was asked for.
    let text = String::from_utf8(built.stdout)?;
    let named = text.rsplit_once(r#""executable":""#).and_then(|(_, rest)| rest.split_once('"'));
    named.map(|(path, _)| path.to_owned()).context("cargo names no program")
}

fn count_all(program: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let parts = Command::new(program).output().context("the program of parts")?;
    let parts = String::from_utf8(parts.stdout)?;
    let folder = std::env::temp_dir().join(format!("hanshu-instructions-{}", std::process::id()));
    fs::create_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let counted = parts
        .lines()
        .map(|part| {
            let few = count(program, part, ROUNDS.0, &folder)?;
            let many = count(program, part, ROUNDS.1, &folder)?;
            let each = many.saturating_sub(few) / (ROUNDS.1 - ROUNDS.0);
            ensure!(0 < each, "`{part}` takes no instructions: it was optimised away");
            Ok((part.to_owned(), each))
        })
        .collect::<anyhow::Result<BTreeMap<_, _>>>();
    fs::remove_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    let counted = counted?;
    ensure!(!counted.is_empty(), "the program names no parts");
    Ok(counted)
}

/// Instructions of one run.
fn count(program: &Path, part: &str, rounds: u64, folder: &Path) -> anyhow::Result<u64> {
    let file = folder.join(format!("{part}-{rounds}"));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args([part, &rounds.to_string()])
        .output()
        .context("valgrind (Debian's package `valgrind`; `scripts/instructions` installs it)")?;
    let stderr = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.success(), "`{part}` failed under valgrind: {stderr}");
    let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let total = text.lines().find_map(|line| {
        line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:"))?.trim().parse().ok()
    });
    total.with_context(|| format!("callgrind's file for `{part}` has no sum"))
}

fn read_kept() -> anyhow::Result<BTreeMap<String, u64>> {
    match fs::read_to_string(KEPT) {
        Ok(text) => toml::from_str(&text).context(KEPT),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).context(KEPT),
    }
}

fn write_kept(counted: &BTreeMap<String, u64>) -> anyhow::Result<()> {
    let head = "# Instructions for each round of a part of the warm path, as callgrind counts them.\n\
                # Written by `scripts/instructions --write`, compared by `scripts/instructions`.\n";
    let lines: String = counted.iter().map(|(part, count)| format!("{part} = {count}\n")).collect();
    fs::write(KEPT, format!("{head}{lines}")).context(KEPT)
}

/// Parts and the rises in percent that the changelog gives reasons for, under Unreleased.
fn reasons(changelog: &str) -> BTreeMap<String, f64> {
    let unreleased = changelog.split("\n## ").find(|part| part.starts_with("Unreleased"));
    let reason = |line: &str| {
        let (part, rest) = line.strip_prefix("- instructions: ")?.split_once(" +")?;
        let (percent, why) = rest.split_once(" %: ")?;
        let percent = percent.parse().ok()?;
        (!why.trim().is_empty()).then(|| (part.to_owned(), percent))
    };
    unreleased.into_iter().flat_map(str::lines).filter_map(reason).collect()
}

/// The table, and what is wrong.
fn compare(
    kept: &BTreeMap<String, u64>,
    counted: &BTreeMap<String, u64>,
    reasons: &BTreeMap<String, f64>,
) -> (String, Vec<CountFault>) {
    let mut table = format!("{:<20}{:>10}{:>10}{:>10}\n", "instructions", "kept", "now", "change");
    let mut wrong = Vec::new();
    let parts: BTreeSet<_> = kept.keys().chain(counted.keys()).collect();
    for part in parts {
        let format_count = |count: Option<&u64>| count.map_or("–".to_owned(), u64::to_string);
        let (before, now) = (kept.get(part), counted.get(part));
        let change = match (before, now) {
            (Some(before), Some(now)) => {
                let percent = percent(*before, *now);
                let reason = reasons.get(part).copied().unwrap_or(0.0);
                if RISE_MAX.max(reason) < percent {
                    wrong.push(CountFault::Rose { part: part.clone(), percent });
                }
                format!("{percent:+.1} %")
            }
            (None, _) => {
                wrong.push(CountFault::New(part.clone()));
                "new".to_owned()
            }
            (_, None) => {
                wrong.push(CountFault::Gone(part.clone()));
                "gone".to_owned()
            }
        };
        table += &format!(
            "{part:<20}{:>10}{:>10}{change:>10}\n",
            format_count(before),
            format_count(now)
        );
    }
    (table, wrong)
}

/// The rise in percent.
fn percent(before: u64, now: u64) -> f64 {
    // Counts are thousands: what a float cannot hold does not come up.
    let float = |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if before == 0 { 0.0 } else { (float(now) - float(before)) * 100.0 / float(before) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
        pairs.iter().map(|(part, count)| ((*part).to_owned(), *count)).collect()
    }

    fn rises(changelog: &str, now: u64) -> bool {
        let (kept, counted) = (counts(&[("a", 1_000)]), counts(&[("a", now)]));
        let (_, wrong) = compare(&kept, &counted, &reasons(changelog));
        matches!(wrong[..], [CountFault::Rose { .. }])
    }

    #[test]
    fn a_rise_of_over_a_tenth_needs_a_reason() {
        assert!(!rises("", 500) && !rises("", 1_100));
        assert!(rises("", 1_101));
    }

    #[test]
    fn a_reason_is_a_line_under_unreleased_that_names_part_rise_and_why() {
        let log = |line: &str| format!("# Changelog\n\n## Unreleased\n- x\n{line}\n\n## 0.1\n");
        assert!(!rises(&log("- instructions: a +14 %: lines are counted now"), 1_140));
        for wrong in [
            "- instructions: a +13 %: lines are counted now",
            "- instructions: b +14 %: lines are counted now",
            "- instructions: a +14 %: ",
            "- instructions: a: lines are counted now",
        ] {
            assert!(rises(&log(wrong), 1_140), "{wrong}");
        }
        let old = "## Unreleased\n\n## 0.1\n- instructions: a +14 %: of long ago\n";
        assert!(rises(old, 1_140));
    }

    #[test]
    fn a_part_that_is_new_or_gone_is_told() {
        let (table, wrong) =
            compare(&counts(&[("gone", 5)]), &counts(&[("new", 7)]), &BTreeMap::new());
        assert_eq!(wrong, [CountFault::Gone("gone".to_owned()), CountFault::New("new".to_owned())]);
        assert!(table.contains("gone") && table.contains("new"), "{table}");
    }
}
