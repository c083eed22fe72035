//! Many small functions of one folder, for rows that need more than one.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::ceiling::Language;
use crate::run::{Run, sources};
use crate::server::Server;

/// Deploys `count` functions `PREFIX-0`, `PREFIX-1` … that share the code of `folder`.
///
/// # Errors
/// Where the deploy fails.
pub(super) async fn deploy(
    run: &Run,
    server: &Server,
    (folder, language): (&str, Language),
    (prefix, count): (&str, usize),
    settings: &str,
) -> anyhow::Result<()> {
    let place = tempfile::Builder::new().prefix("f-").tempdir_in(run.dir())?;
    for file in fs::read_dir(sources().join("functions").join(folder))? {
        let path = file?.path();
        if path.file_name().is_some_and(|name| name != "hanshu.toml") {
            copy(&path, place.path())?;
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
    fs::write(place.path().join("hanshu.toml"), text)?;
    server.deploy(place.path()).await?;
    Ok(())
}

fn copy(file: &Path, to: &Path) -> anyhow::Result<()> {
    let name = file.file_name().unwrap_or_default();
    fs::copy(file, to.join(name))?;
    Ok(())
}
