//! `hanshu init` makes a folder with a function that deploys as it is.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::args::{InitArgs, InitLanguage};
use crate::error::{CommandStatus, Error};
use crate::output::Printer;

/// A file of a template: name, text, whether it is executable.
type TemplateFile = (&'static str, &'static str, bool);

const PYTHON: &[TemplateFile] = &[
    ("hanshu.toml", include_str!("../../templates/python/hanshu.toml"), false),
    ("index.py", include_str!("../../templates/python/index.py"), false),
    ("event.json", include_str!("../../templates/event.json"), false),
];
const NODEJS: &[TemplateFile] = &[
    ("hanshu.toml", include_str!("../../templates/nodejs/hanshu.toml"), false),
    ("index.js", include_str!("../../templates/nodejs/index.js"), false),
    ("event.json", include_str!("../../templates/event.json"), false),
];
const GO: &[TemplateFile] = &[
    ("hanshu.toml", include_str!("../../templates/go/hanshu.toml"), false),
    ("main.go", include_str!("../../templates/go/main.go.txt"), false),
    ("go.mod", include_str!("../../templates/go/go.mod.txt"), false),
    ("scf/scf.go", hanshu_runtimes::GO_LIBRARY, false),
    ("event.json", include_str!("../../templates/event.json"), false),
];
const SHELL: &[TemplateFile] = &[
    ("hanshu.toml", include_str!("../../templates/shell/hanshu.toml"), false),
    ("run.sh", include_str!("../../templates/shell/run.sh"), true),
    ("event.json", include_str!("../../templates/event.json"), false),
];
const CUSTOM: &[TemplateFile] = &[
    ("hanshu.toml", include_str!("../../templates/custom/hanshu.toml"), false),
    ("bootstrap", include_str!("../../templates/custom/bootstrap"), true),
    ("event.json", include_str!("../../templates/event.json"), false),
];

pub(super) fn run(args: &InitArgs, printer: Printer) -> Result<CommandStatus, Error> {
    let files = match args.runtime {
        InitLanguage::Python => PYTHON,
        InitLanguage::Nodejs => NODEJS,
        InitLanguage::Go => GO,
        InitLanguage::Shell => SHELL,
        InitLanguage::Custom => CUSTOM,
    };
    let name = function_name(&args.dir)?;
    if let Some((taken, ..)) =
        files.iter().find(|(file, ..)| args.dir.join(file).symlink_metadata().is_ok())
    {
        let what = "exists already and is not overwritten: choose another folder";
        return Err(Error::file(&args.dir.join(taken), what));
    }
    for (file, text, executable) in files {
        write(&args.dir.join(file), &text.replace("FUNCTION_NAME", &name), *executable)?;
    }
    let dir = args.dir.display();
    let made = serde_json::json!({
        "function": name,
        "dir": args.dir,
        "files": files.iter().map(|(file, ..)| file).collect::<Vec<_>>(),
    });
    printer.show(&made, |_| {
        let names: Vec<_> = files.iter().map(|(file, ..)| *file).collect();
        format!(
            "made {dir}: {}\n\nnext:\n  hanshu deploy {dir}\n  hanshu invoke {name} --data @{dir}/event.json\n  hanshu logs {name} -f",
            names.join(", ")
        )
    })?;
    Ok(CommandStatus::Done)
}

/// The folder's name, made to fit the rule for functions.
fn function_name(dir: &Path) -> Result<String, Error> {
    let full = std::path::absolute(dir).map_err(|error| Error::file(dir, error))?;
    let base = full.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let valid = base.parse::<hanshu_core::FunctionName>();
    valid.map(|name| name.to_string()).map_err(|error| {
        Error::file(dir, format!("the folder's name becomes the function's: {error}"))
    })
}

fn write(path: &Path, text: &str, executable: bool) -> Result<(), Error> {
    let mode = if executable { 0o755 } else { 0o644 };
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    let file =
        folder.and_then(|()| OpenOptions::new().write(true).create_new(true).mode(mode).open(path));
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::file(path, "exists already and is not overwritten"),
        _ => Error::file(path, error),
    })
}
