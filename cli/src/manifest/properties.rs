//! What holds of every `hanshu.toml`: the fuzzer's target `manifest`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "what does not hold must be seen; this is no part of the program"
)]

use std::path::Path;

use hanshu_api::wire::{DeployFunction, ProblemBody};

use super::expand::expand;
use super::{Error, FILE_NAME, Manifest, ManifestSource};

/// Values that the server may find wrong, as it names them.
const FIELDS: [&str; 8] = [
    "memoryMb",
    "env.A",
    "async.maxAgeS",
    "async",
    "triggers[0].cron",
    "triggers[1]",
    "triggers[18446744073709551616].path",
    "handler.x[",
];

/// Reads `text` as a manifest. An error names a line of the file; a valid manifest can be
/// sent as it is, and each of its values be found again.
///
/// # Panics
/// Something does not hold.
pub(crate) fn manifest(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    expands(text);
    let variables = |name: &str| name.starts_with('A').then(|| format!("${{{name}}}"));
    let source = ManifestSource::new(Path::new(FILE_NAME), text);
    let lines = text.split('\n').count();
    let manifest = match Manifest::parse(&source, Path::new("dir"), &variables) {
        Ok(manifest) => manifest,
        Err(Error::Usage(message)) => return has_a_line(&message, lines, false),
        Err(error) => panic!("{error}"),
    };
    assert!(!manifest.functions.is_empty());
    for function in &manifest.functions {
        let json = serde_json::to_vec(&function.settings).expect("settings can be sent");
        let read: DeployFunction = serde_json::from_slice(&json).expect("and are understood");
        assert_eq!(read, function.settings);
        for field in FIELDS {
            let problem = manifest.locate(&function.name, problem(field));
            has_a_line(&problem.detail, lines, true);
        }
    }
    assert!(!manifest.locate("", problem("memoryMb")).detail.is_empty());
}

/// `hanshu.toml:LINE: …`, or, of the whole file, `hanshu.toml: …`.
fn has_a_line(message: &str, lines: usize, must: bool) {
    let rest = message.strip_prefix(FILE_NAME).and_then(|rest| rest.strip_prefix(':'));
    let rest = rest.unwrap_or_else(|| panic!("it does not begin with the file: {message}"));
    let number = rest.split(':').next().and_then(|number| number.parse::<usize>().ok());
    match number {
        Some(number) => assert!((1..=lines).contains(&number), "of {lines} lines: {message}"),
        None => assert!(!must, "it names no line: {message}"),
    }
}

/// A text without `${` stays as it is; a variable's value is not read again; `$${` is itself.
fn expands(text: &str) {
    let own = |name: &str| Some(format!("${{{name}}}"));
    match expand(text, &own) {
        Ok(expanded) if text.contains("$${") => assert!(expanded.len() <= text.len()),
        Ok(expanded) => assert_eq!(expanded, text),
        Err(message) => assert!(text.contains("${") && !message.is_empty()),
    }
    let escaped = text.replace("${", "$${");
    if !text.contains("$$") {
        assert_eq!(expand(&escaped, &|_: &str| None), Ok(text.to_owned()));
    }
}

fn problem(field: &str) -> ProblemBody {
    ProblemBody {
        kind: String::new(),
        title: String::new(),
        status: 400,
        code: "invalid_value".into(),
        detail: format!("`{field}` is wrong"),
        hint: String::new(),
        request_id: None,
        field: Some(field.into()),
        value: None,
        rule: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::replay;

    #[test]
    fn what_holds_of_manifests_holds_of_the_corpus() {
        replay("manifest", manifest);
    }
}
