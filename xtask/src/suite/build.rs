//! The build: every test binary and every program, in one go, as cargo tells where they are.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// The program that tests of other crates run as `isolate` and `shim`.
const SHIM: &str = "shim-under-test";

/// What was built.
#[derive(Debug)]
pub(super) struct BuildOutput {
    pub(super) tests: Vec<TestBinary>,
    pub(super) shim: PathBuf,
    /// The build folder.
    pub(super) target: PathBuf,
    pub(super) cargo: String,
}

/// A test binary, as cargo reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TestBinary {
    /// Its package without `hanshu-`, and its target: `cli it`, `store lib`.
    pub(super) name: String,
    pub(super) program: PathBuf,
    /// The package's folder, in which cargo would run it.
    pub(super) folder: PathBuf,
}

/// Builds all targets: the tests' dependencies and the programs' are the same then, and the
/// programs are there for what comes after the tests.
pub(super) fn all() -> anyhow::Result<BuildOutput> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["build", "--locked", "--workspace", "--all-targets", "--quiet"];
    let built = Command::new(&cargo)
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo build")?;
    ensure!(built.status.success(), "the tests could not be built");
    let messages = String::from_utf8(built.stdout)?;
    let artifacts = artifacts(&messages)?;
    let tests: Vec<_> = artifacts.iter().filter_map(test).collect();
    ensure!(!tests.is_empty(), "cargo names no tests");
    let program = |name: &str| {
        let found =
            artifacts.iter().find(|artifact| !is_test(artifact) && is_named(artifact, name));
        let path = found.and_then(|artifact| artifact["executable"].as_str()).map(PathBuf::from);
        path.with_context(|| format!("cargo built no `{name}`"))
    };
    let shim = program(SHIM)?;
    // The program lies in `target/debug`.
    let target = shim.ancestors().nth(2).context("a program outside of a build folder")?.to_owned();
    Ok(BuildOutput { tests, shim, target, cargo })
}

/// Cargo's messages about what it built.
fn artifacts(messages: &str) -> anyhow::Result<Vec<Value>> {
    let messages = messages.lines().filter(|line| line.starts_with('{'));
    let messages = messages.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    Ok(messages.into_iter().filter(|each| each["reason"] == "compiler-artifact").collect())
}

fn is_test(artifact: &Value) -> bool {
    artifact["profile"]["test"] == true
}

fn is_named(artifact: &Value, name: &str) -> bool {
    artifact["target"]["name"] == name
}

fn test(artifact: &Value) -> Option<TestBinary> {
    let program = artifact["executable"].as_str().filter(|_| is_test(artifact))?;
    let manifest = PathBuf::from(artifact["manifest_path"].as_str()?);
    let folder = manifest.parent()?.to_owned();
    let target = &artifact["target"];
    let kind = target["kind"].get(0)?.as_str()?;
    let of = match kind {
        "test" => target["name"].as_str()?,
        other => other,
    };
    // A package may have several programs.
    let of =
        if kind == "bin" { format!("bin {}", target["name"].as_str()?) } else { of.to_owned() };
    let package = folder.file_name()?.to_str()?;
    Some(TestBinary { name: format!("{package} {of}"), program: program.into(), folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"
{"reason":"compiler-artifact","manifest_path":"/w/cli/Cargo.toml","target":{"kind":["test"],"name":"it"},"profile":{"test":true},"executable":"/t/debug/deps/it-1"}
{"reason":"compiler-artifact","manifest_path":"/w/store/Cargo.toml","target":{"kind":["lib"],"name":"hanshu_store"},"profile":{"test":true},"executable":"/t/debug/deps/hanshu_store-2"}
{"reason":"compiler-artifact","manifest_path":"/w/store/Cargo.toml","target":{"kind":["lib"],"name":"hanshu_store"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/cli/Cargo.toml","target":{"kind":["bin"],"name":"hanshu"},"profile":{"test":false},"executable":"/t/debug/hanshu"}
{"reason":"compiler-artifact","manifest_path":"/w/cli/Cargo.toml","target":{"kind":["bin"],"name":"hanshu"},"profile":{"test":true},"executable":"/t/debug/deps/hanshu-3"}
{"reason":"build-finished","success":true}
"#;

    #[test]
    fn tests_are_told_from_programs_and_named_by_package_and_target() {
        let artifacts = artifacts(MESSAGES).unwrap();
        let names: Vec<_> = artifacts.iter().filter_map(test).map(|test| test.name).collect();
        assert_eq!(names, ["cli it", "store lib", "cli bin hanshu"]);
    }
}
