//! Reads `hanshu.toml`, which says what a folder deploys. Keys and types of values are checked here,
//! with the line in the error; the rules for values are checked by the server.

mod expand;
mod file;
mod locate;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod trigger;

use std::path::{Path, PathBuf};

use hanshu_api::wire::{AsyncSettings, DeployFunction, ProblemBody};

pub(crate) use expand::VariableLookup;

use crate::error::Error;
use locate::ManifestSource;
use trigger::trigger;

/// The file's name in a folder.
pub(crate) const FILE_NAME: &str = "hanshu.toml";

/// A `hanshu.toml` that has been read and checked.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The value of `namespace`, if there is one.
    pub(crate) namespace: Option<String>,
    /// Its functions, by name.
    pub(crate) functions: Vec<ManifestFunction>,
    path: PathBuf,
    text: String,
}

/// One function of a manifest.
#[derive(Debug)]
pub(crate) struct ManifestFunction {
    /// The function's name.
    pub(crate) name: String,
    /// Folder or zip with its code.
    pub(crate) code: PathBuf,
    /// What is sent, the code's digest still missing.
    pub(crate) settings: DeployFunction,
}

impl Manifest {
    /// Reads `hanshu.toml` in a folder, or the file itself.
    pub(crate) fn read(dir: &Path, variables: &dyn VariableLookup) -> Result<Self, Error> {
        let path = if dir.is_dir() { dir.join(FILE_NAME) } else { dir.to_owned() };
        let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Usage(format!(
                "no {FILE_NAME} in `{}`\nhint: `hanshu init {} --runtime python` makes one",
                dir.display(),
                dir.display()
            )),
            _ => Error::file(&path, error),
        })?;
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        Self::parse(&ManifestSource::new(&path, &text), &folder, variables)
    }

    fn parse(
        source: &ManifestSource<'_>,
        folder: &Path,
        variables: &dyn VariableLookup,
    ) -> Result<Self, Error> {
        let file: file::ManifestFile =
            toml::from_str(source.text()).map_err(|e| source.toml(&e))?;
        let mut functions = Vec::new();
        for (name, entry) in file.functions {
            functions.push(function(name, entry, folder, &ParseContext { source, variables })?);
        }
        if functions.is_empty() {
            return Err(source.whole("no [functions.NAME] in it: there is nothing to deploy"));
        }
        let (path, text) = (source.path().to_owned(), source.text().to_owned());
        let namespace = file.namespace.map(|name| name.to_string());
        Ok(Self { namespace, functions, path, text })
    }

    /// Adds to the server's problem with a value of `function` the line of that value.
    pub(crate) fn locate(&self, function: &str, problem: ProblemBody) -> ProblemBody {
        ManifestSource::new(&self.path, &self.text).problem(function, problem)
    }
}

/// The source, for errors with a line, and the variables that values may name.
struct ParseContext<'a> {
    source: &'a ManifestSource<'a>,
    variables: &'a dyn VariableLookup,
}

fn function(
    name: String,
    entry: file::FunctionTable,
    folder: &Path,
    context: &ParseContext<'_>,
) -> Result<ManifestFunction, Error> {
    let mut env = std::collections::BTreeMap::new();
    for (key, value) in entry.env {
        env.insert(key, context.expand(&value)?);
    }
    let triggers = entry
        .triggers
        .into_iter()
        .map(|table| trigger(table, context))
        .collect::<Result<_, _>>()?;
    let settings = DeployFunction {
        runtime: entry.runtime,
        handler: entry.handler,
        code: String::new(),
        memory_mb: entry.memory_mb,
        timeout_s: entry.timeout_s,
        init_timeout_s: entry.init_timeout_s,
        concurrency: entry.concurrency,
        network: entry.network,
        async_settings: entry.asynchronous.map(|each| AsyncSettings {
            max_attempts: each.max_attempts,
            retry_delay_s: each.retry_delay_s,
            max_age_s: each.max_age_s,
            max_waiting: each.max_waiting,
        }),
        env,
        triggers,
    };
    Ok(ManifestFunction { name, code: folder.join(entry.code), settings })
}

impl ParseContext<'_> {
    fn expand(&self, value: &toml::Spanned<String>) -> Result<String, Error> {
        expand::expand(value.get_ref(), self.variables)
            .map_err(|what| self.source.at(value.span(), &what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        let variables = |name: &str| (name == "WHO").then(|| "you".to_owned());
        let source = ManifestSource::new(Path::new("hanshu.toml"), text);
        Manifest::parse(&source, Path::new("dir"), &variables).map_err(|error| error.to_string())
    }

    const HEAD: &str = "[functions.hello]\nruntime = \"python\"\nhandler = \"index.main\"\n";

    #[track_caller]
    fn check_error(body: &str, expected: &[&str]) {
        let message = parse(&format!("{HEAD}{body}")).unwrap_err();
        for part in expected {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    }

    #[test]
    fn the_whole_of_it_is_read() {
        let manifest = parse(
            r#"
namespace = "shop"
[functions.hello]
runtime = "python"
handler = "index.main_handler"
code = "src"
memory_mb = 256
timeout_s = 5
init_timeout_s = 10
concurrency = 10
network = false
async = { max_attempts = 2, retry_delay_s = 1, max_age_s = 60, max_waiting = 7 }
env = { GREETING = "hi ${WHO}", PRICE = "$5 $${WHO}" }
[[functions.hello.triggers]]
type = "timer"
cron = "*/5 * * * * * *"
timezone = "Asia/Shanghai"
argument = "text"
enabled = false
[[functions.hello.triggers]]
type = "http"
path = "/hello/{name}"
methods = ["GET"]
auth = "none"
[[functions.hello.triggers]]
type = "redis"
url = "redis://${WHO}:6379"
stream = "orders"
"#,
        )
        .unwrap();
        assert_eq!(manifest.namespace.as_deref(), Some("shop"));
        let hello = &manifest.functions[0];
        assert_eq!((hello.name.as_str(), hello.code.as_path()), ("hello", Path::new("dir/src")));
        assert_eq!(hello.settings.env["GREETING"], "hi you");
        assert_eq!(hello.settings.env["PRICE"], "$5 ${WHO}");
        assert_eq!(hello.settings.async_settings.as_ref().unwrap().max_waiting, Some(7));
        let redis = &hello.settings.triggers[2];
        let expected = serde_json::json!({"url": "redis://you:6379", "stream": "orders"});
        assert_eq!((redis.kind.as_str(), serde_json::json!(redis.fields)), ("redis", expected));
    }

    #[test]
    fn a_mistyped_key_is_named_with_its_line() {
        check_error("memry_mb = 128\n", &["hanshu.toml:4", "`memry_mb`", "memory_mb"]);
        check_error("async = { max_attemps = 1 }\n", &["hanshu.toml:4", "`max_attemps`"]);
        check_error(
            "[[functions.hello.triggers]]\ntype = \"timer\"\ncorn = \"x\"\n",
            &["hanshu.toml:6", "`corn`", "cron"],
        );
    }

    #[test]
    fn what_the_server_says_of_a_value_gets_the_line() {
        let text = format!(
            "{HEAD}memory_mb = 100\nasync = {{ max_age_s = 1 }}\n\
             [[functions.hello.triggers]]\ntype = \"http\"\npath = \"/x\"\n\
             [[functions.hello.triggers]]\ntype = \"timer\"\ncron = \"x\"\n"
        );
        let source = ManifestSource::new(Path::new("hanshu.toml"), &text);
        let variables = |_: &str| None;
        let manifest = Manifest::parse(&source, Path::new("dir"), &variables).unwrap();
        let detail = |field: &str| {
            let problem = ProblemBody {
                kind: String::new(),
                title: String::new(),
                status: 400,
                code: "invalid_value".into(),
                detail: format!("`{field}` is `100`"),
                hint: String::new(),
                request_id: None,
                field: Some(field.into()),
                value: None,
                rule: None,
            };
            manifest.locate("hello", problem).detail
        };
        assert_eq!(detail("memoryMb"), "hanshu.toml:4: `memory_mb` is `100`\n  memory_mb = 100");
        assert!(detail("async.maxAgeS").starts_with("hanshu.toml:5: `async.max_age_s`"));
        assert!(detail("triggers[1].cron").starts_with("hanshu.toml:11: "));
        assert!(detail("triggers[0].methods").starts_with("hanshu.toml:7: "));
        assert!(detail("timeoutS").starts_with("hanshu.toml:1: "));
    }

    #[test]
    fn a_bad_value_is_named_with_its_line() {
        check_error("memory_mb = \"big\"\n", &["hanshu.toml:4"]);
        check_error("timeout_s = -1\n", &["hanshu.toml:4"]);
        check_error("env = { A = \"${NOBODY}\" }\n", &["hanshu.toml:4", "`NOBODY`"]);
        check_error("env = { A = \"${WHO\" }\n", &["hanshu.toml:4", "}"]);
        check_error(
            "[[functions.hello.triggers]]\ntype = \"tmer\"\n",
            &["hanshu.toml:5", "`tmer`"],
        );
        check_error(
            "[[functions.hello.triggers]]\ntype = \"timer\"\n",
            &["hanshu.toml:5", "`cron`"],
        );
        check_error(
            "[[functions.hello.triggers]]\ntype = \"timer\"\ncron = \"x\"\npath = \"/x\"\n",
            &["hanshu.toml:7", "`path`"],
        );
        let message = parse("namespace = \"a b\"\n").unwrap_err();
        assert!(message.contains("hanshu.toml:1") && message.contains("`a b`"), "{message}");
        assert!(parse("namespace = \"x\"\n").unwrap_err().contains("nothing to deploy"));
        assert!(parse("[functions.hello\n").unwrap_err().contains("hanshu.toml:1"));
    }
}
