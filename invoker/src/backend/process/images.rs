//! What stands for images where sandboxes are processes: the host's interpreters.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use hanshu_core::RuntimeFamily;
use hanshu_core::ports::{BuildProgress, ImageBuilder, ImageError};

/// Makes nothing: process sandboxes use the host's interpreters. Says which are missing.
#[derive(Clone, Debug)]
pub struct ProcessImages {
    /// An absolute path.
    pub python: PathBuf,
    /// An absolute path.
    pub node: PathBuf,
}

#[async_trait]
impl ImageBuilder for ProcessImages {
    async fn ensure(
        &self,
        family: RuntimeFamily,
        _progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        let (path, package, setting): (&Path, _, _) = match family {
            RuntimeFamily::Python => (&self.python, "python3", "python"),
            RuntimeFamily::Nodejs => (&self.node, "nodejs", "node"),
            RuntimeFamily::Shell => (Path::new("/bin/sh"), "dash", "none"),
            // They bring their own program.
            RuntimeFamily::Go | RuntimeFamily::Custom => return Ok(()),
        };
        runnable(path).map_err(|reason| {
            ImageError(format!(
                "{family} functions cannot run in process sandboxes here: {reason}; install the \
                 package {package}, or name another interpreter (setting: {setting})",
                family = family.as_str(),
            ))
        })
    }
}

/// Whether every user may execute the file: a shim in somebody's home is not.
fn runnable(path: &Path) -> Result<(), String> {
    let real = fs::canonicalize(path).map_err(|_| format!("`{}` is missing", path.display()))?;
    let mode = fs::metadata(&real).map(|found| found.permissions().mode()).unwrap_or_default();
    if mode & 0o001 == 0 {
        return Err(format!("`{}` may not be run by every user", real.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_interpreter_is_named_with_its_package() {
        let images = ProcessImages { python: "/nowhere/python3".into(), node: "/bin/sh".into() };
        let error = images.ensure(RuntimeFamily::Python, &|_: &str| {}).await.unwrap_err();
        assert!(error.to_string().contains("`/nowhere/python3` is missing"), "{error}");
        assert!(error.to_string().contains("package python3"), "{error}");
        images.ensure(RuntimeFamily::Nodejs, &|_: &str| {}).await.unwrap();
        images.ensure(RuntimeFamily::Go, &|_: &str| {}).await.unwrap();
    }
}
