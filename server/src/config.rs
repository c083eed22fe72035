//! The server's configuration: one struct, read in one place. Flags beat the environment
//! (`HANSHU_…`, nested keys with `__`), which beats the file, which beats the defaults here.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use hanshu_core::Secret;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::retention_config::{HistoryConfig, JournalConfig};

/// Variables that belong to the command line, not to the server.
const NOT_OURS: [&str; 7] =
    ["endpoint", "http_endpoint", "secret_id", "secret_key", "namespace", "profile", "config"];

/// Settings that are `None` by default, which a map of the defaults does not show.
const OPTIONAL: [&str; 3] = ["database", "queue", "http_url"];
/// Where a value came from, in figment's words.
const ENVIRONMENT: &str = "environment";

/// Everything the operator can set. Field docs are the reference.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The API's address. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The address of HTTP triggers: another origin than the API's, always.
    pub http_listen: SocketAddr,
    /// What a deploy shows as the address of HTTP triggers, where a proxy stands before them.
    pub http_url: Option<String>,
    /// Where everything is kept. One server per folder.
    pub data: PathBuf,
    /// What functions run in: `auto` takes Docker when an engine answers, else processes.
    pub sandbox: SandboxChoice,
    /// `unix:///path` or `tcp://host:port` of the Docker engine; nothing means the usual socket.
    pub docker_host: Option<String>,
    /// `sqlite:FILE` or `postgres://…`; nothing means a SQLite file in the data folder.
    pub database: Option<Secret>,
    /// `redis://…`; nothing means a table in the database.
    pub queue: Option<Secret>,
    /// What this process does: `all`, or some of `gateway,controller,triggers,invoker`.
    pub roles: String,
    /// The zone of timers that name none; IANA name.
    pub timezone: String,
    /// Listen on other addresses than loopback although there is no TLS.
    pub allow_plaintext: bool,
    /// Seconds that running events get to end when the server stops.
    pub grace_s: u64,
    /// Take events into a Redis that may lose them (no AOF, or an evicting policy).
    pub allow_unsafe_queue: bool,
    /// Days an ended asynchronous event keeps its state and result.
    pub keep_results_days: u32,
    /// What is logged: `error`, `warn`, `info`, `debug`, or a `tracing` filter.
    pub log: String,
    /// `human` or `json`.
    pub log_format: LogFormat,
    /// Milliseconds a synchronous call may wait in the wait queue for a sandbox.
    pub wait_timeout_ms: u64,
    /// Queued events that this process runs at once, at most.
    pub async_running_max: usize,
    /// Sandboxes. `pool.run_dir` follows `data` where it is not set.
    pub pool: hanshu_invoker::InvokerOptions,
    /// Records and logs of calls.
    pub journal: JournalConfig,
    /// Ended asynchronous events.
    pub history: HistoryConfig,
    /// Addresses and token of a cluster.
    pub cluster: ClusterConfig,
}

/// Several processes on one PostgreSQL and one Redis.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Where this process listens for the other processes of the cluster.
    pub listen: Option<SocketAddr>,
    /// `http://host:port` under which the other processes reach that.
    pub advertise: Option<String>,
    /// `http://host:port` of the controller.
    pub controller: Option<String>,
    /// `http://host:port` of the processes with the triggers role: a gateway asks them how users'
    /// streams fare.
    pub triggers: Vec<String>,
    /// The shared secret of the processes' calls to each other, at least 32 characters.
    pub token: Option<Secret>,
    /// 64 hexadecimal characters under which access keys are sealed; nothing means a key file in
    /// the data folder.
    pub master_key: Option<Secret>,
    /// The first access key's id; nothing means a new one.
    pub first_secret_id: Option<String>,
    /// The first access key's secret.
    pub first_secret_key: Option<Secret>,
}

/// What functions run in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxChoice {
    /// Docker when an engine answers, else processes.
    #[default]
    Auto,
    /// Docker or nothing.
    Docker,
    /// Processes, for one's own functions.
    Process,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text, for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What one process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// The API and HTTP triggers.
    pub gateway: bool,
    /// Packages, images, retention.
    pub controller: bool,
    /// Timers, dispatchers, sources.
    pub triggers: bool,
    /// Runs sandboxes and builds images.
    pub invoker: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9000)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 9080)),
            http_url: None,
            data: PathBuf::new(),
            sandbox: SandboxChoice::default(),
            docker_host: None,
            database: None,
            queue: None,
            roles: "all".into(),
            timezone: "UTC".into(),
            allow_plaintext: false,
            grace_s: 10,
            allow_unsafe_queue: false,
            keep_results_days: 1,
            log: "info".into(),
            log_format: LogFormat::default(),
            wait_timeout_ms: 10_000,
            async_running_max: 64,
            pool: hanshu_invoker::InvokerOptions { run_dir: PathBuf::new(), ..Default::default() },
            journal: JournalConfig::default(),
            history: HistoryConfig::default(),
            cluster: ClusterConfig::default(),
        }
    }
}

impl Config {
    /// Reads defaults, file, environment and flags, in this order of growing weight. `flags` are
    /// serialised as a map that lacks what was not given.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, where it was set and what was expected.
    pub fn load(file: Option<&Path>, flags: impl Serialize) -> Result<Self, Error> {
        if let Some(missing) = file.filter(|path| !path.is_file()) {
            return Err(Error::Config(format!("--config `{}`: no such file", missing.display())));
        }
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            figment = figment.merge(FileLayer(file));
        }
        let mut config: Self = figment
            .merge(environment(std::env::vars_os()))
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| Error::Config(format_error(&error)))?;
        if config.data.as_os_str().is_empty() {
            config.data = default_data_dir().ok_or_else(|| {
                Error::Config("neither HOME nor XDG_DATA_HOME is set: say --data DIR".into())
            })?;
        }
        if config.pool.run_dir.as_os_str().is_empty() {
            config.pool.run_dir = config.data.join("run");
        }
        config.check()?;
        Ok(config)
    }

    /// What cannot be valid is refused at the start, by name.
    fn check(&self) -> Result<(), Error> {
        let wrong = |text: String| Err(Error::Config(text));
        self.roles()?;
        if jiff::tz::TimeZone::get(&self.timezone).is_err() {
            return wrong(format!(
                "`timezone` is `{}`: expected an IANA name such as `Asia/Shanghai` or `UTC`",
                self.timezone
            ));
        }
        let several = self.roles()? != Roles::ALL;
        let sqlite = self.database.as_ref().is_none_or(|url| url.expose().starts_with("sqlite:"));
        if several && sqlite {
            return wrong(
                "with some `roles` only, `database` must be the same `postgres://…` in all \
                 processes: an SQLite file belongs to one process"
                    .into(),
            );
        }
        if self.cluster.token.as_ref().is_some_and(|token| token.expose().len() < 32) {
            return wrong("`cluster.token` is shorter than 32 characters".into());
        }
        let inner = self.cluster.listen.map(|address| ("cluster.listen", address));
        let outer = [("listen", self.listen), ("http_listen", self.http_listen)];
        for (name, address) in outer.into_iter().chain(inner) {
            if !address.ip().is_loopback() && !self.allow_plaintext {
                return wrong(format!(
                    "`{name}` is `{address}`, which others can reach, and there is no TLS: keys \
                     would cross the network in plain. Listen on 127.0.0.1 behind a proxy, or \
                     say --allow-plaintext"
                ));
            }
        }
        if self.listen == self.http_listen && self.listen.port() != 0 {
            return wrong("`listen` and `http_listen` are the same address; the API never shares an origin with functions".into());
        }
        if self.pool.sandboxes_max == 0 || self.async_running_max == 0 {
            return wrong("`pool.sandboxes_max` and `async_running_max` must be at least 1".into());
        }
        Ok(())
    }

    /// What this process does.
    ///
    /// # Errors
    /// [`Error::Config`] names the word that is no role.
    pub fn roles(&self) -> Result<Roles, Error> {
        Roles::parse(&self.roles)
    }

    /// How long running events get at the end.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_s)
    }
}

impl Roles {
    /// Everything in one process.
    pub const ALL: Self = Self { gateway: true, controller: true, triggers: true, invoker: true };

    fn parse(text: &str) -> Result<Self, Error> {
        let mut roles = Self { gateway: false, controller: false, triggers: false, invoker: false };
        for word in text.split(',').map(str::trim) {
            match word {
                "all" => roles = Self::ALL,
                "gateway" => roles.gateway = true,
                "controller" => roles.controller = true,
                "triggers" => roles.triggers = true,
                "invoker" => roles.invoker = true,
                other => {
                    return Err(Error::Config(format!(
                        "`roles` holds `{other}`: expected `all`, or some of \
                         `gateway,controller,triggers,invoker`"
                    )));
                }
            }
        }
        Ok(roles)
    }
}

/// Our variables as a map: `HANSHU_POOL__KEEP_ALIVE_S` is `pool.keep_alive_s`. An empty one counts
/// as not set. Whatever is a text in the configuration stays one, digits or not.
fn environment(variables: impl Iterator<Item = (OsString, OsString)>) -> EnvironmentLayer {
    let known = Figment::from(Serialized::defaults(Config::default()));
    let mut layer = Dict::new();
    for (name, text) in variables {
        let (Some(name), Some(text)) = (name.to_str(), text.to_str()) else { continue };
        let Some(key) = name.strip_prefix("HANSHU_") else { continue };
        let path = key.to_ascii_lowercase().replace("__", ".");
        let first = path.split('.').next().unwrap_or_default();
        let ours = known.contains(first) || OPTIONAL.contains(&first);
        if text.is_empty() || !ours || NOT_OURS.contains(&first) {
            continue;
        }
        let value = match known.find_value(&path) {
            Ok(Value::Bool(..)) => boolean(text),
            Ok(Value::Num(..) | Value::Array(..)) => read(text),
            Ok(_) => Value::from(text),
            // Not set by default: a text, or a list in brackets.
            Err(_) if text.starts_with('[') => read(text),
            Err(_) => Value::from(text),
        };
        set(&mut layer, &path, value);
    }
    EnvironmentLayer(layer)
}

fn set(layer: &mut Dict, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(layer.insert(path.into(), value)),
        Some((first, rest)) => {
            let inner = layer.entry(first.into()).or_insert_with(|| Dict::new().into());
            if let Value::Dict(_, inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

/// What [`environment`] found.
struct EnvironmentLayer(Dict);

impl Provider for EnvironmentLayer {
    fn metadata(&self) -> Metadata {
        Metadata::named(ENVIRONMENT)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

/// A file. figment's own reader of TOML is of an older version, which would be compiled beside ours.
struct FileLayer<'a>(&'a Path);

impl Provider for FileLayer<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::from("TOML file", self.0)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let text = std::fs::read_to_string(self.0).map_err(|error| error.to_string())?;
        let values: Dict = toml::from_str(&text).map_err(|error| error.to_string())?;
        Ok(Profile::Default.collect(values))
    }
}

fn boolean(text: &str) -> Value {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Value::from(true),
        "0" | "false" | "no" | "off" => Value::from(false),
        _ => Value::from(text),
    }
}

fn read(text: &str) -> Value {
    text.parse().unwrap_or_else(|_| Value::from(text))
}

/// What is wrong, and where it was set: flag, variable, or key of the file.
fn format_error(error: &figment::Error) -> String {
    let path = error.path.join(".");
    let from = error.metadata.as_ref();
    let place = match from.and_then(|from| from.source.as_ref()) {
        Some(figment::Source::File(file)) => format!("{}: `{path}`", file.display()),
        _ if from.is_some_and(|from| from.name == ENVIRONMENT) => {
            format!("HANSHU_{}", path.replace('.', "__").to_ascii_uppercase())
        }
        // No flag reaches into a part.
        _ if path.contains('.') => format!("`{path}`"),
        _ => format!("--{}", path.replace('_', "-")),
    };
    match &error.kind {
        Kind::UnknownField(_, known) => {
            let known: Vec<_> = known.iter().map(|key| format!("`{key}`")).collect();
            format!("{place} is no setting: expected one of {}", known.join(", "))
        }
        Kind::UnknownVariant(value, known) => {
            format!("{place} is `{value}`: expected {}", known.join(", "))
        }
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            let number = matches!(wanted.as_str(), "u16" | "u32" | "u64" | "usize");
            let wanted = if number { "a whole number" } else { wanted };
            format!("{place} is {found}: expected {wanted}")
        }
        // Of a whole file: the text has its own place in it.
        kind if path.is_empty() => format!("{place}: {kind}").replace(": ``", ""),
        kind => format!("{place}: {kind}{}", hint(&path)),
    }
}

/// What was expected, where the error of the value does not name it.
fn hint(path: &str) -> &'static str {
    if path.ends_with("listen") {
        ": expected an address with a port, such as `127.0.0.1:9000`; port 0 takes any free one"
    } else {
        ""
    }
}

/// `$XDG_DATA_HOME/hanshu`, else `~/.local/share/hanshu`.
pub fn default_data_dir() -> Option<PathBuf> {
    let xdg = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    xdg.or_else(home).map(|base| base.join("hanshu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(flags: serde_json::Value) -> Result<Config, String> {
        let mut flags = flags;
        flags["data"] = "/nowhere".into();
        Config::load(None, flags).map_err(|error| error.to_string())
    }

    #[test]
    fn other_addresses_than_loopback_want_a_word() {
        let message = load(serde_json::json!({"listen": "0.0.0.0:9000"})).unwrap_err();
        assert!(message.contains("--allow-plaintext"), "{message}");
        load(serde_json::json!({"listen": "0.0.0.0:9000", "allow_plaintext": true})).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = load(serde_json::json!({"roles": "gateway,chef"})).unwrap_err();
        assert!(message.contains("`chef`"), "{message}");
        let message = load(serde_json::json!({"timezone": "Mars/Base"})).unwrap_err();
        assert!(message.contains("Mars/Base"), "{message}");
        let message = load(serde_json::json!({"pool": {"keep_alvie_s": 3}})).unwrap_err();
        assert!(message.contains("keep_alvie_s"), "{message}");
        let loaded =
            load(serde_json::json!({"listen": "127.0.0.1:1", "http_listen": "127.0.0.1:1"}));
        assert!(loaded.unwrap_err().contains("origin"));
    }

    fn from_environment(variables: &[(&str, &str)]) -> Result<Config, String> {
        let pairs = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Figment::from(Serialized::defaults(Config::default()))
            .merge(environment(pairs))
            .extract()
            .map_err(|error| format_error(&error))
    }

    #[test]
    fn the_environment_is_read_by_the_type_of_each_setting() {
        let config = from_environment(&[
            ("HANSHU_ALLOW_PLAINTEXT", "1"),
            ("HANSHU_TIMEZONE", ""),
            ("HANSHU_QUEUE", "redis://x"),
            ("HANSHU_POOL__KEEP_ALIVE_S", "7"),
            ("HANSHU_CLUSTER__TOKEN", "12345678901234567890123456789012"),
            ("HANSHU_CLUSTER__LISTEN", "127.0.0.1:7000"),
            ("HANSHU_CLUSTER__TRIGGERS", "[\"http://a:1\"]"),
            ("HANSHU_SECRET_KEY", "not ours"),
            ("HANSHU_UP_LOG", "not ours"),
        ])
        .unwrap();
        assert!(config.allow_plaintext && config.timezone == "UTC");
        assert_eq!(config.queue.unwrap().expose(), "redis://x");
        assert_eq!(config.pool.keep_alive_s, 7);
        assert_eq!(config.cluster.token.unwrap().expose().len(), 32);
        assert_eq!(config.cluster.triggers, ["http://a:1"]);
        assert!(config.cluster.listen.is_some());
    }

    #[test]
    fn where_a_bad_value_was_set_is_said() {
        let check = |loaded: Result<Config, String>, parts: &[&str]| {
            let message = loaded.unwrap_err();
            for part in parts {
                assert!(message.contains(part), "`{part}` is not in: {message}");
            }
        };
        check(load(serde_json::json!({"listen": "here"})), &["--listen", "127.0.0.1:9000"]);
        check(load(serde_json::json!({"http_listen": "x"})), &["--http-listen"]);
        check(load(serde_json::json!({"sandbox": "vm"})), &["--sandbox is `vm`", "docker"]);
        check(from_environment(&[("HANSHU_LISTEN", "x")]), &["HANSHU_LISTEN", "127.0.0.1:9000"]);
        check(from_environment(&[("HANSHU_ALLOW_PLAINTEXT", "maybe")]), &["HANSHU_ALLOW", "maybe"]);
        check(
            from_environment(&[("HANSHU_POOL__KEEP_ALVIE_S", "1")]),
            &["HANSHU_POOL__KEEP_ALVIE_S"],
        );
    }

    #[test]
    fn flags_beat_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hanshu-server.toml");
        std::fs::write(
            &file,
            "timezone = \"Asia/Shanghai\"\ngrace_s = 3\n[pool]\nkeep_alive_s = 7\n",
        )
        .unwrap();
        let flags = serde_json::json!({"grace_s": 4, "data": "/nowhere"});
        let config = Config::load(Some(&file), flags).unwrap();
        assert_eq!((config.timezone.as_str(), config.grace_s), ("Asia/Shanghai", 4));
        assert_eq!((config.pool.keep_alive_s, config.pool.waiting_max), (7, 1_000));
    }
}
