//! The functions that the cases call: one for each set of settings, all deployed at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::data::{Case, Status, Suite};
use crate::world::{World, root};

/// What a function is deployed with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Variant {
    language: String,
    memory_mb: u32,
    timeout_s: u32,
    env: BTreeMap<String, String>,
    handler: Option<String>,
    network: Option<bool>,
    /// The case that has this function for itself.
    own: Option<String>,
}

/// The functions that the suite has deployed.
#[derive(Debug)]
pub(super) struct Functions {
    /// Why a function was refused, by its name.
    pub(super) refused: BTreeMap<String, String>,
}

/// Answers beside the cases, and is called by nobody but them.
pub(super) const NEIGHBOUR: &str = "neighbour";
/// Listens on a port of its own.
pub(super) const LISTENING_NEIGHBOUR: &str = "neighbour-go";

impl Variant {
    pub(super) fn of(suite: &Suite, case: &Case, language: &str) -> Self {
        let env = if case.env.is_empty() { &suite.defaults.env } else { &case.env };
        Self {
            language: language.to_owned(),
            memory_mb: case.memory_mb.unwrap_or(suite.defaults.memory_mb),
            timeout_s: case.timeout_s.unwrap_or(suite.defaults.timeout_s),
            env: env.clone(),
            handler: case.special.handler.clone(),
            network: case.network,
            own: case.special.cold.then(|| case.name.clone()),
        }
    }

    /// The function's name.
    pub(super) fn name(&self) -> String {
        let mut name = format!("{}-{}m-{}s", self.language, self.memory_mb, self.timeout_s);
        for key in self.env.keys() {
            name += &format!("-{key}");
        }
        if let Some(handler) = &self.handler {
            name += &format!("-{}", handler.replace('.', "-"));
        }
        if let Some(network) = self.network {
            name += if network { "-net" } else { "-nonet" };
        }
        if let Some(own) = &self.own {
            name += &format!("-{own}");
        }
        name
    }

    fn toml(&self, suite: &Suite, code: &Path) -> String {
        let Self { language, memory_mb, timeout_s, env, handler, network, .. } = self;
        let known = &suite.languages[language];
        let handler = handler.as_ref().unwrap_or(&known.handler);
        let mut text = format!(
            "[functions.{}]\nruntime = \"{}\"\nhandler = \"{handler}\"\ncode = \"{}\"\n\
             memory_mb = {memory_mb}\ntimeout_s = {timeout_s}\n",
            self.name(),
            known.runtime,
            code.join(language).with_extension("zip").display()
        );
        if let Some(network) = network {
            let _ = writeln!(text, "network = {network}");
        }
        for (key, value) in env {
            let _ = writeln!(text, "env.{key} = \"{value}\"");
        }
        text
    }
}

impl Functions {
    /// Deploys all that the cases of this backend need.
    pub(super) fn deploy(world: &World, suite: &Suite, backend: &str) -> Self {
        let (mut usual, mut doubtful) = (BTreeSet::new(), BTreeSet::new());
        for case in suite.cases.iter().filter(|case| case.is_of(backend)) {
            for language in &case.languages {
                let status = suite.expect(case, language).status;
                let kind = if status == Status::FailedOrRefusedAtDeploy {
                    &mut doubtful
                } else {
                    &mut usual
                };
                kind.insert(Variant::of(suite, case, language));
            }
        }
        let names: BTreeSet<_> = usual.iter().chain(&doubtful).map(Variant::name).collect();
        assert_eq!(names.len(), usual.len() + doubtful.len(), "two functions share a name");
        let code = code(suite).path();
        let neighbours = [(NEIGHBOUR, "python"), (LISTENING_NEIGHBOUR, "go")].map(|(name, of)| {
            let handler = &suite.languages[of].handler;
            let code = code.join(of).with_extension("zip");
            format!(
                "[functions.{name}]\nruntime = \"{of}\"\nhandler = \"{handler}\"\n\
                 code = \"{}\"\n",
                code.display()
            )
        });
        let usual: Vec<_> = usual.iter().map(|it| it.toml(suite, code)).chain(neighbours).collect();
        deploy(world, &usual).unwrap_or_else(|why| panic!("{why}\n{}", world.log()));
        let refusal =
            |it: &Variant| Some((it.name(), deploy(world, &[it.toml(suite, code)]).err()?));
        Self { refused: doubtful.iter().filter_map(refusal).collect() }
    }
}

fn deploy(world: &World, functions: &[String]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hanshu.toml"), functions.join("\n")).unwrap();
    let ran = world.hanshu(&["deploy", folder.path().to_str().unwrap()]);
    if ran.code == 0 { Ok(()) } else { Err(format!("exit {}: {}", ran.code, ran.stderr)) }
}

/// A package for each language, with what is compiled.
fn code(suite: &Suite) -> &'static TempDir {
    static CODE: OnceLock<TempDir> = OnceLock::new();
    CODE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let from = root().join("runtimes/conformance");
        for (language, known) in &suite.languages {
            let to = folder.path().join(language);
            std::fs::create_dir(&to).unwrap();
            match known.folder.strip_prefix("go/") {
                Some(package) => build(&from.join("go"), package, &to.join(&known.handler)),
                None => copy(&from.join(&known.folder), &to),
            }
            pack(&to);
        }
        folder
    })
}

fn build(module: &Path, package: &str, binary: &Path) {
    let built = Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(binary)
        .arg(format!("./{package}"))
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "hanshu.toml" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Packed once, where `hanshu deploy` would pack a folder for every function.
fn pack(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mut archive = zip::ZipWriter::new(File::create(folder.with_extension("zip")).unwrap());
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .unix_permissions(entry.metadata().unwrap().permissions().mode());
        archive.start_file(entry.file_name().to_string_lossy(), options).unwrap();
        std::io::copy(&mut File::open(entry.path()).unwrap(), &mut archive).unwrap();
    }
    archive.finish().unwrap();
}
