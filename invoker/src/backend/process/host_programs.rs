//! What stands for images where sandboxes are processes: programs of the host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use async_trait::async_trait;
use hanshu_core::ports::{BuildProgress, ImageBuilder, ImageError};
use hanshu_core::{HostProgram, RuntimeFamily};

use crate::config::InvokerOptions;

/// Builds nothing: process sandboxes use the host's programs. Says which are missing.
#[derive(Clone, Debug)]
pub struct HostPrograms {
    options: InvokerOptions,
}

impl HostPrograms {
    /// Those that the operator has named.
    pub fn new(options: InvokerOptions) -> Self {
        Self { options }
    }
}

#[async_trait]
impl ImageBuilder for HostPrograms {
    async fn ensure(
        &self,
        family: RuntimeFamily,
        _progress: BuildProgress<'_>,
    ) -> Result<(), ImageError> {
        // Families without one bring their own program.
        let Some(program) = &family.profile().host_program else { return Ok(()) };
        let HostProgram { package, setting, .. } = program;
        check_runnable(Path::new(self.options.program(program))).map_err(|reason| {
            ImageError(format!(
                "{family} functions cannot run in process sandboxes here: {reason}; install the \
                 package {package}, or name another interpreter (setting: {setting})",
                family = family.as_str(),
                setting = setting.unwrap_or("none"),
            ))
        })
    }
}

/// Checks that every user may execute the file: one in somebody's home is not executable.
fn check_runnable(path: &Path) -> Result<(), String> {
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
        let programs = HostPrograms::new(InvokerOptions {
            python: "/nowhere/python3".into(),
            node: "/bin/sh".into(),
            ..InvokerOptions::default()
        });
        let error = programs.ensure(RuntimeFamily::PYTHON, &|_: &str| {}).await.unwrap_err();
        assert!(error.to_string().contains("`/nowhere/python3` is missing"), "{error}");
        assert!(error.to_string().contains("package python3"), "{error}");
        programs.ensure(RuntimeFamily::NODEJS, &|_: &str| {}).await.unwrap();
        programs.ensure(RuntimeFamily::GO, &|_: &str| {}).await.unwrap();
    }
}
