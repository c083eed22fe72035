//! The image that all recipes start from: pulled where a registry answers, else put together from
//! Debian packages.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bollard::query_parameters::CreateImageOptions;
use bollard::{Docker, body_try_stream};
use futures_util::StreamExt as _;
use hanshu_core::ports::{BuildProgress, ImageError};
use nix::unistd::Uid;
use tokio::fs::{self, File};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use crate::backend::image_recipe::BASE_IMAGE as BASE;

/// Limit of the whole pull, of 30 MB.
const PULL_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit of waiting for the registry's next message.
const PULL_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of putting it together, which takes 25 s on a good connection.
const MAKE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The script that `compose-prepare` runs as well. With `--tar FILE` it uses no engine.
const SCRIPT: &str = include_str!("../../../../../runtimes/images/base.sh");
const SUITE: &str = "bookworm";
/// Settings of the official image; a flat archive has none of its own.
const SETTINGS: [&str; 2] =
    ["CMD [\"bash\"]", "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
/// Last lines of the script's output that an error quotes.
const QUOTED_LINES: usize = 5;

#[derive(Debug)]
pub(super) struct BaseImage {
    dir: PathBuf,
}

impl BaseImage {
    /// `dir` holds the archive while it is made.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Pulls the image, or puts it together where no registry gives it.
    pub(super) async fn make(
        &self,
        docker: &Docker,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        progress(&format!("pulling {BASE}"));
        let reason = match timeout(PULL_TIMEOUT, pull(docker)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(_) => format!("not complete after {} s", PULL_TIMEOUT.as_secs()),
        };
        progress(&format!("no registry gives it ({reason}): making it from Debian packages"));
        if !Uid::effective().is_root() {
            return Err(ImageError(format!(
                "the base image {BASE} is missing, no registry gives it ({reason}), and only \
                 root can make it: run `sudo runtimes/images/base.sh {SUITE}` once"
            )));
        }
        fs::create_dir_all(&self.dir).await.map_err(|error| failed("make a folder", &error))?;
        let archive = self.dir.join(format!("base-{}.tar", std::process::id()));
        let made = self.put_together(docker, &archive, progress).await;
        let _ = fs::remove_file(&archive).await;
        made
    }

    async fn put_together(
        &self,
        docker: &Docker,
        archive: &Path,
        progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let made = timeout(MAKE_TIMEOUT, run_script(archive, progress)).await;
        made.unwrap_or_else(|_| {
            let minutes = MAKE_TIMEOUT.as_secs() / 60;
            Err(ImageError(format!("making {BASE} took more than {minutes} minutes")))
        })?;
        progress(&format!("importing {BASE}"));
        import(docker, archive).await
    }
}

/// Pulls the image; the error is a text for the operator.
async fn pull(docker: &Docker) -> Result<(), String> {
    let (name, tag) = BASE.split_once(':').unwrap_or((BASE, "latest"));
    let options = CreateImageOptions {
        from_image: Some(name.into()),
        tag: Some(tag.into()),
        ..Default::default()
    };
    let mut lines = Box::pin(docker.create_image(Some(options), None, None));
    loop {
        match timeout(PULL_MESSAGE_TIMEOUT, lines.next()).await {
            Ok(Some(Ok(line))) => {
                if let Some(message) = line.error_detail.and_then(|detail| detail.message) {
                    return Err(message);
                }
            }
            Ok(Some(Err(error))) => return Err(error.to_string()),
            Ok(None) => return Ok(()),
            Err(_) => return Err("it does not answer".into()),
        }
    }
}

async fn run_script(archive: &Path, progress: BuildProgress<'_>) -> Result<(), ImageError> {
    let mut child = Command::new("bash")
        .args(["-c", SCRIPT, "base.sh", "--tar"])
        .arg(archive)
        .arg(SUITE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("start bash", &error))?;
    let last = report_lines(&mut child, progress)
        .await
        .map_err(|error| failed("read from bash", &error))?;
    let status = child.wait().await.map_err(|error| failed("wait for bash", &error))?;
    if status.success() {
        return Ok(());
    }
    Err(ImageError(format!("could not make {BASE} ({status}): {}", last.join("; "))))
}

/// Reports each line of standard error as progress; returns the last ones.
async fn report_lines(child: &mut Child, progress: BuildProgress<'_>) -> io::Result<Vec<String>> {
    let mut last = Vec::new();
    let Some(output) = child.stderr.take() else { return Ok(last) };
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        progress(&line);
        if last.len() == QUOTED_LINES {
            last.remove(0);
        }
        last.push(line);
    }
    Ok(last)
}

async fn import(docker: &Docker, archive: &Path) -> Result<(), ImageError> {
    let file = File::open(archive).await.map_err(|error| failed("read the archive", &error))?;
    let (name, tag) = BASE.split_once(':').unwrap_or((BASE, "latest"));
    let options = CreateImageOptions {
        from_src: Some("-".into()),
        repo: Some(name.into()),
        tag: Some(tag.into()),
        changes: SETTINGS.map(str::to_owned).to_vec(),
        ..Default::default()
    };
    let body = body_try_stream(ReaderStream::new(file));
    let mut lines = Box::pin(docker.create_image(Some(options), Some(body), None));
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| ImageError(format!("could not import {BASE}: {error}")))?;
        if let Some(message) = line.error_detail.and_then(|detail| detail.message) {
            return Err(ImageError(format!("could not import {BASE}: {message}")));
        }
    }
    Ok(())
}

fn failed(what: &str, error: &io::Error) -> ImageError {
    ImageError(format!("could not {what} for {BASE}: {error}"))
}
