//! The Docker command line, for what is not timed: listing and removing containers.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// # Errors
/// If `docker` fails; the error holds its output.
pub(crate) fn docker(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("cannot run `docker` (Debian package docker.io)")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {}: {}", args.join(" "), stderr.trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// Full ids of the running containers with this label.
///
/// # Errors
/// If `docker` fails.
pub(crate) fn labelled(label: &str) -> anyhow::Result<Vec<String>> {
    let filter = format!("label={label}");
    let ids = docker(&["ps", "--no-trunc", "--quiet", "--filter", &filter])?;
    Ok(ids.lines().map(str::to_owned).collect())
}

/// Failures are ignored: the engine logs them.
pub(crate) fn remove_labelled(label: &str) {
    let filter = format!("label={label}");
    if let Ok(ids) = docker(&["ps", "--all", "--quiet", "--filter", &filter]) {
        remove(&ids.lines().collect::<Vec<_>>());
    }
}

pub(crate) fn remove(ids: &[&str]) {
    if !ids.is_empty() {
        drop(docker(&[&["rm", "--force"], ids].concat()));
    }
}

/// The newest image of this runtime family that hanshu has built.
///
/// # Errors
/// If there is none yet.
pub(crate) fn image(family: &str) -> anyhow::Result<String> {
    let images =
        docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", &format!("hanshu/{family}")])?;
    let newest = images.lines().find(|name| !name.ends_with("<none>"));
    Ok(newest.with_context(|| format!("there is no image hanshu/{family} yet"))?.to_owned())
}
