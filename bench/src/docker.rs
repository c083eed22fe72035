//! The Docker command line, for what is not timed: which containers there are, and their removal.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// # Errors
/// With docker's words, where it fails.
pub(crate) fn docker(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("cannot run `docker` (Debian package docker.io)")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {}: {}", args.join(" "), words.trim());
    Ok(String::from_utf8(output.stdout)?)
}

/// Full ids of containers with this label.
///
/// # Errors
/// Where docker does not say.
pub(crate) fn labelled(label: &str) -> anyhow::Result<Vec<String>> {
    let filter = format!("label={label}");
    let ids = docker(&["ps", "--no-trunc", "--quiet", "--filter", &filter])?;
    Ok(ids.lines().map(str::to_owned).collect())
}

/// Of those that cannot be removed docker's engine has said why in its log.
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

/// The image that functions of this family run in: the newest that the platform made.
///
/// # Errors
/// Where there is none yet.
pub(crate) fn image(family: &str) -> anyhow::Result<String> {
    let images =
        docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", &format!("hanshu/{family}")])?;
    let newest = images.lines().find(|name| !name.ends_with("<none>"));
    Ok(newest.with_context(|| format!("there is no image hanshu/{family} yet"))?.to_owned())
}
