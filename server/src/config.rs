//! The server's configuration: one struct, read in one place. Flags beat the environment
//! (`HANSHU_…`, nested keys with `__`), which beats the file, which beats the defaults here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use hanshu_core::Secret;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Variables that belong to the command line, not to the server.
const NOT_OURS: [&str; 7] =
    ["endpoint", "http_endpoint", "secret_id", "secret_key", "namespace", "profile", "config"];

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
    /// Seconds that running events get when the server is told to stop.
    pub grace_s: u64,
    /// Take events into a Redis that may lose them (no AOF, or an evicting policy).
    pub allow_unsafe_queue: bool,
    /// Days an ended asynchronous event keeps its state and result.
    pub keep_results_days: u32,
    /// What is logged: `error`, `warn`, `info`, `debug`, or a `tracing` filter.
    pub log: String,
    /// `human` or `json`.
    pub log_format: LogFormat,
    /// Milliseconds a synchronous call waits in line for a sandbox, at most.
    pub line_wait_ms: u64,
    /// Queued events that this process runs at once, at most.
    pub async_running_max: usize,
    /// Sandboxes. `pool.run_dir` follows `data` where it is not set.
    pub pool: hanshu_invoker::Options,
    /// Records and logs of calls.
    pub journal: JournalConfig,
    /// Several processes.
    pub cluster: ClusterConfig,
}

/// Records and logs of calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// Days they are kept.
    pub keep_days: u32,
    /// MiB they may use.
    pub keep_mb: u64,
}

/// Several processes on one PostgreSQL and one Redis.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Where this process listens for its sisters.
    pub listen: Option<SocketAddr>,
    /// `http://host:port` under which its sisters reach that.
    pub advertise: Option<String>,
    /// `http://host:port` of the controller.
    pub controller: Option<String>,
    /// `http://host:port` of the processes with the triggers role: a gateway asks them how users'
    /// streams fare.
    pub triggers: Vec<String>,
    /// What sisters show each other; the same in all, at least 32 characters.
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
    /// For people.
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
    /// Sandboxes.
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
            line_wait_ms: 10_000,
            async_running_max: 64,
            pool: hanshu_invoker::Options { run_dir: PathBuf::new(), ..Default::default() },
            journal: JournalConfig::default(),
            cluster: ClusterConfig::default(),
        }
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { keep_days: 7, keep_mb: 1_024 }
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
        let known = Figment::from(Serialized::defaults(Self::default()));
        let env = Env::prefixed("HANSHU_")
            .filter(move |key| {
                let first = key.as_str().split("__").next().unwrap_or_default();
                let ours = known.contains(&first.to_ascii_lowercase())
                    || ["database", "queue", "http_url", "docker_host"]
                        .contains(&first.to_ascii_lowercase().as_str());
                ours && !NOT_OURS.contains(&first.to_ascii_lowercase().as_str())
            })
            .split("__");
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        let mut config: Self = figment
            .merge(env)
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(|error| Error::Config(error.to_string()))?;
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
        let said = load(serde_json::json!({"listen": "0.0.0.0:9000"})).unwrap_err();
        assert!(said.contains("--allow-plaintext"), "{said}");
        load(serde_json::json!({"listen": "0.0.0.0:9000", "allow_plaintext": true})).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = load(serde_json::json!({"roles": "gateway,chef"})).unwrap_err();
        assert!(said.contains("`chef`"), "{said}");
        let said = load(serde_json::json!({"timezone": "Mars/Base"})).unwrap_err();
        assert!(said.contains("Mars/Base"), "{said}");
        let said = load(serde_json::json!({"pool": {"keep_alvie_s": 3}})).unwrap_err();
        assert!(said.contains("keep_alvie_s"), "{said}");
        let said = load(serde_json::json!({"listen": "127.0.0.1:1", "http_listen": "127.0.0.1:1"}));
        assert!(said.unwrap_err().contains("origin"));
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
