//! Deploys many functions that share one folder of code.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::ceiling::WorkerLanguage;
use crate::run::{BenchRun, crate_dir};
use crate::server::BenchServer;

/// What is deployed.
#[derive(Clone, Copy, Debug)]
pub(super) struct GeneratedFunctions<'a> {
    /// The folder of their code.
    pub(super) folder: &'a str,
    pub(super) language: WorkerLanguage,
    pub(super) prefix: &'a str,
    pub(super) count: usize,
    /// Lines of TOML for each function.
    pub(super) settings: &'a str,
}

impl GeneratedFunctions<'_> {
    /// Deploys `count` functions `PREFIX-0`, `PREFIX-1` …
    ///
    /// # Errors
    /// If the deploy fails.
    pub(super) async fn deploy(self, run: &BenchRun, server: &BenchServer) -> anyhow::Result<()> {
        let Self { folder, language, prefix, count, settings } = self;
        let code_dir = tempfile::Builder::new().prefix("f-").tempdir_in(run.dir())?;
        for file in fs::read_dir(crate_dir().join("functions").join(folder))? {
            let path = file?.path();
            if path.file_name().is_some_and(|name| name != "hanshu.toml") {
                copy(&path, code_dir.path())?;
            }
        }
        let runtime = language.family();
        let mut text = String::new();
        for index in 0..count {
            writeln!(
                text,
                "[functions.{prefix}-{index}]\nruntime = \"{runtime}\"\n\
                 handler = \"index.main_handler\"\n{settings}\n"
            )?;
        }
        fs::write(code_dir.path().join("hanshu.toml"), text)?;
        server.deploy(code_dir.path()).await?;
        Ok(())
    }
}

fn copy(file: &Path, to: &Path) -> anyhow::Result<()> {
    let name = file.file_name().unwrap_or_default();
    fs::copy(file, to.join(name))?;
    Ok(())
}
