//! Checks at the deploy that the handler's file is in the package, rather than at the first call.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use hanshu_core::HandlerRule;

use crate::error::ControllerError;

/// Looks for the file that `handler` names in the unpacked package, by its runtime's rule.
///
/// # Errors
/// [`ControllerError::Invalid`] that names the files which were looked for.
pub(crate) fn check_handler_file(
    folder: &Path,
    rule: HandlerRule,
    handler: &str,
) -> Result<(), ControllerError> {
    let candidates = candidates(rule, handler)?;
    let found = candidates.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let Some(found) = found else {
        let names: Vec<_> = candidates.iter().map(|name| format!("`{name}`")).collect();
        let rule = format!(
            "a handler whose file is in the package: {} was not found there",
            names.join(" or ")
        );
        return Err(ControllerError::invalid("handler", handler, rule));
    };
    if let HandlerRule::File { starts_with: magic } = rule
        && !starts_with(&found, magic)
    {
        let magic = String::from_utf8_lossy(magic);
        let rule = format!("a script whose first line starts with `{magic}`");
        return Err(ControllerError::invalid("handler", handler, rule));
    }
    Ok(())
}

/// Where the handler may be, relative to the package's root.
fn candidates(rule: HandlerRule, handler: &str) -> Result<Vec<String>, ControllerError> {
    Ok(match rule {
        HandlerRule::Module { files, dots_are_folders } => {
            let module = module(handler)?;
            let path = if dots_are_folders { module.replace('.', "/") } else { module.to_owned() };
            files.iter().map(|file| file.replace("{}", &path)).collect()
        }
        HandlerRule::File { .. } => vec![handler.to_owned()],
        HandlerRule::Fixed(file) => vec![file.to_owned()],
    })
}

fn module(handler: &str) -> Result<&str, ControllerError> {
    match handler.rsplit_once('.') {
        Some((module, function)) if !module.is_empty() && !function.is_empty() => Ok(module),
        _ => Err(ControllerError::invalid(
            "handler",
            handler,
            "`file.function`, such as `index.main_handler`",
        )),
    }
}

fn starts_with(path: &Path, magic: &[u8]) -> bool {
    let mut start = vec![0; magic.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == magic
}

#[cfg(test)]
mod tests {
    use hanshu_core::RuntimeFamily;

    use super::*;

    fn check(files: &[(&str, &str)], family: RuntimeFamily, handler: &str) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let rule = family.profile().handler;
        check_handler_file(folder.path(), rule, handler).map_err(|error| error.to_string())
    }

    #[test]
    fn a_handler_is_found_where_its_language_looks() {
        check(&[("index.py", "")], RuntimeFamily::PYTHON, "index.main_handler").unwrap();
        check(&[("a/b.py", "")], RuntimeFamily::PYTHON, "a/b.main").unwrap();
        check(&[("a/b.py", "")], RuntimeFamily::PYTHON, "a.b.main").unwrap();
        check(&[("index.mjs", "")], RuntimeFamily::NODEJS, "index.main_handler").unwrap();
        check(&[("main", "")], RuntimeFamily::GO, "main").unwrap();
        check(&[("bootstrap", "")], RuntimeFamily::CUSTOM, "anything at all").unwrap();
        check(&[("run.sh", "#!/bin/sh")], RuntimeFamily::SHELL, "run.sh").unwrap();
    }

    #[test]
    fn a_missing_handler_is_named() {
        let said =
            check(&[("other.py", "")], RuntimeFamily::PYTHON, "index.main_handler").unwrap_err();
        assert!(said.contains("`index.py`"), "{said}");
        let said = check(&[("run.sh", "echo")], RuntimeFamily::SHELL, "run.sh").unwrap_err();
        assert!(said.contains("#!"), "{said}");
        assert!(check(&[("index.py", "")], RuntimeFamily::PYTHON, "index").is_err());
    }
}
