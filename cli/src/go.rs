//! A Go folder without its binary is built by the local `go`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::error::Error;

/// Builds the package in `folder`: static, for Linux, and the same bytes for the same sources.
/// The binary lives as long as the folder that is given with it.
pub(crate) fn build(folder: &Path, handler: &str) -> Result<(PathBuf, TempDir), Error> {
    let out = tempfile::tempdir()
        .map_err(|error| Error::Usage(format!("no temporary folder: {error}")))?;
    let binary = out.path().join("binary");
    let done = Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o"])
        .arg(&binary)
        .arg(".")
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        .env("GOOS", "linux")
        .output();
    let done = done.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Usage(format!(
            "`{handler}` is not in {} and there is no `go` to build it\nhint: install Go, or build the binary yourself: CGO_ENABLED=0 go build -o {handler} .",
            folder.display()
        )),
        _ => Error::Usage(format!("`go` could not be started: {error}")),
    })?;
    if !done.status.success() {
        return Err(Error::Usage(format!(
            "`go build` failed in {}:\n{}",
            folder.display(),
            String::from_utf8_lossy(&done.stderr).trim_end()
        )));
    }
    Ok((binary, out))
}
