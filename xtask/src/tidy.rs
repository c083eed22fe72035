//! Tidiness of the tree: short files, each with its subject in the first line, no loose ends, no
//! dead links, standard words, one type for each name, doc comments that say something.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{dialect, doc_comments, type_names};

/// Longest source file.
const LINES_MAX: usize = 500;
/// Endings of source files.
const SOURCES: [&str; 8] = ["rs", "py", "cjs", "mjs", "js", "go", "sh", "lua"];
/// Words that mark unfinished work.
const LOOSE_ENDS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Checks the files that git tracks.
pub(crate) fn check() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut types = Vec::new();
    let files = tracked()?;
    for file in &files {
        let path = Path::new(file);
        let Ok(text) = fs::read_to_string(path) else { continue };
        let ending = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
        if SOURCES.contains(&ending) {
            wrong.extend(source(file, ending, &text));
        }
        if ending == "rs" {
            wrong.extend(doc_comments::check(file, &text));
            types.extend(type_names::definitions(file, &text));
        }
        wrong.extend(dialect::check(file, &text));
        if ending == "md" {
            wrong.extend(dead_links(path, &text));
        }
    }
    wrong.extend(type_names::reused(&types));
    if wrong.is_empty() {
        let mut out = std::io::stdout();
        std::io::Write::write_fmt(&mut out, format_args!("tidy: {} files\n", files.len()))?;
        return Ok(());
    }
    bail!("not tidy:\n  {}", wrong.join("\n  "))
}

/// Prints lines of Rust for each crate, and its longest file.
pub(crate) fn lines() -> anyhow::Result<()> {
    let mut crates: BTreeMap<String, (usize, usize, String)> = BTreeMap::new();
    for file in tracked()?.into_iter().filter(|file| file.ends_with(".rs")) {
        let count = fs::read_to_string(&file)?.lines().count();
        let name = file.split('/').next().unwrap_or_default().to_owned();
        let entry = crates.entry(name).or_default();
        entry.0 += count;
        if entry.1 < count {
            (entry.1, entry.2) = (count, file);
        }
    }
    let mut out = std::io::stdout();
    for (name, (sum, longest, file)) in crates {
        std::io::Write::write_fmt(
            &mut out,
            format_args!("{name:<12}{sum:>7}  longest {longest:>4} {file}\n"),
        )?;
    }
    Ok(())
}

fn tracked() -> anyhow::Result<Vec<String>> {
    let listed = Command::new("git").args(["ls-files", "-z"]).output().context("git ls-files")?;
    let text = String::from_utf8(listed.stdout)?;
    Ok(text.split('\0').filter(|name| !name.is_empty()).map(Into::into).collect())
}

fn source(file: &str, ending: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let count = text.lines().count();
    if LINES_MAX < count {
        wrong.push(format!("{file}: {count} lines, at most {LINES_MAX}: split it by subject"));
    }
    if ending == "rs" && !text.trim_start_matches("#![cfg(test)]\n").trim_start().starts_with("//!")
    {
        wrong.push(format!("{file}: its first line does not say what it is (`//! …`)"));
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(word) = LOOSE_ENDS.iter().find(|word| has_word(line, word)) {
            wrong.push(format!("{file}:{}: `{word}`: settle it, or open an issue", number + 1));
        }
    }
    wrong
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric()).any(|each| each == word)
}

fn dead_links(path: &Path, text: &str) -> Vec<String> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    links
        .map(|link| link.split('#').next().unwrap_or_default())
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.contains(' '))
        .filter(|link| !folder.join(link).exists())
        .map(|link| format!("{}: no such file: {link}", path.display()))
        .collect()
}
