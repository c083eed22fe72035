//! What is run side by side: a test binary, or a part of one; and what is known of the long ones.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::build::TestBinary;

/// A run of a test binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// The binary's name, and which part.
    pub(super) name: String,
    pub(super) binary: TestBinary,
    /// What is handed to the binary: filters.
    pub(super) arguments: Vec<String>,
    /// Tests at a time within it; `None`: as many as processors.
    pub(super) threads: Option<usize>,
    /// How many tests there are in it.
    pub(super) tests: usize,
}

/// What is known of a binary that takes long.
struct LongBinary {
    binary: &'static str,
    /// Parts that run by themselves, as the beginning of their tests' names; the rest is one more.
    parts: &'static [&'static str],
    threads: usize,
}

/// The long ones, the longest first. Their tests mostly wait: more of them at a time than there are
/// processors.
const LONG: [LongBinary; 4] = [
    LongBinary { binary: "cli hostile", parts: &[], threads: 4 },
    LongBinary { binary: "cli it", parts: &["conformance::"], threads: 4 },
    LongBinary { binary: "store it", parts: &[], threads: 4 },
    LongBinary { binary: "invoker it", parts: &[], threads: 4 },
];

/// The jobs of these binaries, the long ones first.
pub(super) fn all(binaries: &[TestBinary]) -> anyhow::Result<Vec<Job>> {
    let listed = binaries.iter().map(|binary| Ok((binary.clone(), list(binary)?)));
    let mut listed = listed.collect::<anyhow::Result<Vec<_>>>()?;
    for known in &LONG {
        let is_there = listed.iter().any(|(binary, _)| binary.name == known.binary);
        ensure!(is_there, "there is no `{}` any more: xtask/src/suite/job.rs", known.binary);
    }
    let place = |name: &str| LONG.iter().position(|known| known.binary == name);
    listed.sort_by_key(|(binary, _)| place(&binary.name).unwrap_or(LONG.len()));
    let jobs = listed.iter().flat_map(|(binary, tests)| {
        let known = place(&binary.name).and_then(|place| LONG.get(place));
        split(binary, tests, known)
    });
    // An empty one has nothing to say.
    Ok(jobs.filter(|job| 0 < job.tests).collect())
}

/// The parts of a binary, which together are all of it.
fn split(binary: &TestBinary, tests: &[String], known: Option<&LongBinary>) -> Vec<Job> {
    let parts = known.map_or(&[][..], |known| known.parts);
    let threads = known.map(|known| known.threads);
    let count = |part: &str| tests.iter().filter(|test| test.starts_with(part)).count();
    let job = |name: String, arguments: Vec<String>, tests| Job {
        name,
        binary: binary.clone(),
        arguments,
        threads,
        tests,
    };
    let mut jobs: Vec<_> = parts
        .iter()
        .map(|part| job(format!("{} {part}", binary.name), vec![(*part).to_owned()], count(part)))
        .collect();
    let skip = parts.iter().flat_map(|part| ["--skip".to_owned(), (*part).to_owned()]).collect();
    let rest = tests.len() - jobs.iter().map(|job| job.tests).sum::<usize>();
    jobs.push(job(binary.name.clone(), skip, rest));
    jobs
}

/// The names of a binary's tests.
fn list(binary: &TestBinary) -> anyhow::Result<Vec<String>> {
    let listed = Command::new(&binary.program)
        .args(["--list", "--format", "terse"])
        .current_dir(&binary.folder)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| binary.name.clone())?;
    ensure!(listed.status.success(), "{} does not list its tests", binary.name);
    let text = String::from_utf8(listed.stdout)?;
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(Into::into).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_binary_are_together_all_of_it() {
        let binary = TestBinary { name: "a it".into(), program: "p".into(), folder: "f".into() };
        let tests = ["x::1", "y::1", "x::2", "z"].map(str::to_owned);
        let known = LongBinary { binary: "a it", parts: &["x::"], threads: 3 };
        let jobs = split(&binary, &tests, Some(&known));
        let shown: Vec<_> =
            jobs.iter().map(|job| (&*job.name, job.arguments.join(" "), job.tests)).collect();
        assert_eq!(
            shown,
            [("a it x::", "x::".to_owned(), 2), ("a it", "--skip x::".to_owned(), 2)]
        );
        assert_eq!(split(&binary, &tests, None)[0].tests, 4);
    }
}
