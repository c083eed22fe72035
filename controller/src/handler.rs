//! Is the handler in the package? Asked at the deploy, so that nobody has to find out by a call.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hanshu_core::RuntimeFamily;

use crate::error::Error;

/// Looks for the file that `handler` names in the unpacked package.
///
/// # Errors
/// [`Error::Invalid`] that names the files which were looked for.
pub(crate) fn check_handler_file(
    folder: &Path,
    family: RuntimeFamily,
    handler: &str,
) -> Result<(), Error> {
    let candidates = candidates(family, handler)?;
    let found = candidates.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let Some(found) = found else {
        let names: Vec<_> = candidates.iter().map(|name| format!("`{}`", name.display())).collect();
        let rule = format!(
            "a handler whose file is in the package: {} was not found there",
            names.join(" or ")
        );
        return Err(Error::invalid("handler", handler, rule));
    };
    if family == RuntimeFamily::Shell && !starts_with(&found, b"#!") {
        return Err(Error::invalid(
            "handler",
            handler,
            "a script whose first line starts with `#!`",
        ));
    }
    Ok(())
}

/// Where the handler may be, relative to the package's root.
fn candidates(family: RuntimeFamily, handler: &str) -> Result<Vec<PathBuf>, Error> {
    let module = || match handler.rsplit_once('.') {
        Some((module, function)) if !module.is_empty() && !function.is_empty() => Ok(module),
        _ => {
            Err(Error::invalid("handler", handler, "`file.function`, such as `index.main_handler`"))
        }
    };
    Ok(match family {
        RuntimeFamily::Python => {
            let path = module()?.replace('.', "/");
            vec![format!("{path}.py").into(), format!("{path}/__init__.py").into()]
        }
        RuntimeFamily::Nodejs => {
            let module = module()?;
            ["js", "cjs", "mjs"].iter().map(|end| format!("{module}.{end}").into()).collect()
        }
        RuntimeFamily::Go | RuntimeFamily::Shell => vec![handler.into()],
        RuntimeFamily::Custom => vec!["bootstrap".into()],
    })
}

fn starts_with(path: &Path, magic: &[u8; 2]) -> bool {
    let mut start = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *magic
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], family: RuntimeFamily, handler: &str) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        check_handler_file(folder.path(), family, handler).map_err(|error| error.to_string())
    }

    #[test]
    fn a_handler_is_found_where_its_language_looks() {
        check(&[("index.py", "")], RuntimeFamily::Python, "index.main_handler").unwrap();
        check(&[("a/b.py", "")], RuntimeFamily::Python, "a/b.main").unwrap();
        check(&[("a/b.py", "")], RuntimeFamily::Python, "a.b.main").unwrap();
        check(&[("index.mjs", "")], RuntimeFamily::Nodejs, "index.main_handler").unwrap();
        check(&[("main", "")], RuntimeFamily::Go, "main").unwrap();
        check(&[("bootstrap", "")], RuntimeFamily::Custom, "anything at all").unwrap();
        check(&[("run.sh", "#!/bin/sh")], RuntimeFamily::Shell, "run.sh").unwrap();
    }

    #[test]
    fn a_missing_handler_is_named() {
        let said =
            check(&[("other.py", "")], RuntimeFamily::Python, "index.main_handler").unwrap_err();
        assert!(said.contains("`index.py`"), "{said}");
        let said = check(&[("run.sh", "echo")], RuntimeFamily::Shell, "run.sh").unwrap_err();
        assert!(said.contains("#!"), "{said}");
        assert!(check(&[("index.py", "")], RuntimeFamily::Python, "index").is_err());
    }
}
