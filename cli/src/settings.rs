//! Which server, which key: flags, then environment, then the configuration file's profile, then
//! what a server on this machine left in its default data folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hanshu_api::ClientAuth;
use hanshu_core::Secret;
use serde::Deserialize;

use crate::args::GlobalArgs;
use crate::error::Error;

/// Where calls go and with which key.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `http://host:port`, without a slash at the end.
    pub(crate) endpoint: String,
    /// An access key; within a sandbox, the sandbox's token.
    pub(crate) auth: ClientAuth,
    /// From flag or environment. It takes precedence over `hanshu.toml`, so that `deploy` and the
    /// commands after it mean the same functions.
    pub(crate) namespace_override: Option<String>,
    /// From files; used where neither flag, environment nor `hanshu.toml` name one.
    pub(crate) namespace_default: String,
}

/// One set of settings, from one place.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsLayer {
    endpoint: Option<String>,
    secret_id: Option<String>,
    secret_key: Option<Secret>,
    /// The token of a sandbox; from the environment only.
    #[serde(skip)]
    token: Option<Secret>,
    namespace: Option<String>,
}

impl SettingsLayer {
    /// Fills what is missing from another layer.
    fn or(self, other: Self) -> Self {
        Self {
            endpoint: self.endpoint.or(other.endpoint),
            secret_id: self.secret_id.or(other.secret_id),
            secret_key: self.secret_key.or(other.secret_key),
            token: self.token.or(other.token),
            namespace: self.namespace.or(other.namespace),
        }
    }
}

/// `~/.config/hanshu/config.toml`: settings, and others under `[profiles.NAME]` that take
/// precedence.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    endpoint: Option<String>,
    secret_id: Option<String>,
    secret_key: Option<Secret>,
    namespace: Option<String>,
    /// The profile that is used where `--profile` says none; `default` if absent.
    default_profile: Option<String>,
    #[serde(default)]
    profiles: BTreeMap<String, SettingsLayer>,
}

impl Settings {
    /// Reads flags, environment, files, and the credentials that a local server left.
    pub(crate) fn find(global: &GlobalArgs) -> Result<Self, Error> {
        let flags = SettingsLayer {
            endpoint: global.endpoint.clone(),
            secret_id: global.secret_id.clone(),
            secret_key: global.secret_key.clone().map(Secret::new),
            token: None,
            namespace: global.namespace.clone(),
        };
        let layers = [flags, environment(), profile(global)?, left_by_server()];
        let pick = |field: fn(&SettingsLayer) -> Option<String>| layers.iter().find_map(field);
        let endpoint = pick(|layer| layer.endpoint.clone());
        let (Some(endpoint), Some(auth)) = (endpoint, auth(&layers)) else {
            return Err(Error::Usage(
                "no server is known: neither flags, nor HANSHU_ENDPOINT, HANSHU_SECRET_ID and \
                 HANSHU_SECRET_KEY, nor ~/.config/hanshu/config.toml, nor a server's \
                 credentials.env in the default data folder\nhint: start one with `hanshu serve`, \
                 or read another's: `. DIR/credentials.env; export HANSHU_ENDPOINT \
                 HANSHU_SECRET_ID HANSHU_SECRET_KEY`"
                    .into(),
            ));
        };
        if !endpoint.starts_with("http://") {
            return Err(Error::Usage(format!(
                "the endpoint is `{endpoint}`: expected `http://host:port`"
            )));
        }
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').into(),
            auth,
            namespace_override: layers.iter().take(2).find_map(|layer| layer.namespace.clone()),
            namespace_default: pick(|layer| layer.namespace.clone())
                .unwrap_or_else(|| "default".into()),
        })
    }

    /// The namespace of commands that read no `hanshu.toml`.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace_override.as_deref().unwrap_or(&self.namespace_default)
    }
}

/// How requests are authenticated: by a key of flags and environment, else the sandbox's token, else a key of
/// files.
fn auth(layers: &[SettingsLayer; 4]) -> Option<ClientAuth> {
    let key = |layers: &[SettingsLayer]| {
        let id = layers.iter().find_map(|layer| layer.secret_id.clone())?;
        let secret = layers.iter().find_map(|layer| layer.secret_key.clone())?;
        Some(ClientAuth::Key { id, secret })
    };
    let token = || layers.iter().find_map(|layer| layer.token.clone()).map(ClientAuth::Token);
    let [flags, environment, ..] = layers;
    key(&[flags.clone(), environment.clone()]).or_else(token).or_else(|| key(layers))
}

fn environment() -> SettingsLayer {
    let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    SettingsLayer {
        endpoint: get("HANSHU_ENDPOINT"),
        secret_id: get("HANSHU_SECRET_ID"),
        secret_key: get("HANSHU_SECRET_KEY").map(Secret::new),
        token: get("HANSHU_TOKEN").map(Secret::new),
        // A function's own namespace, within its sandbox.
        namespace: get("HANSHU_NAMESPACE").or_else(|| get("SCF_NAMESPACE")),
    }
}

fn config_path() -> Option<PathBuf> {
    let xdg = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    xdg.or_else(home).map(|base| base.join("hanshu/config.toml"))
}

fn profile(global: &GlobalArgs) -> Result<SettingsLayer, Error> {
    let text = config_path().map(|path| (std::fs::read_to_string(&path), path));
    let (file, path) = match text {
        Some((Ok(text), path)) => {
            let file = toml::from_str::<ConfigFile>(&text);
            (file.map_err(|error| Error::file(&path, error.to_string().trim_end()))?, path)
        }
        Some((Err(error), path)) if error.kind() == std::io::ErrorKind::NotFound => {
            (ConfigFile::default(), path)
        }
        Some((Err(error), path)) => return Err(Error::file(&path, error)),
        None => (ConfigFile::default(), PathBuf::from("~/.config/hanshu/config.toml")),
    };
    let ConfigFile { endpoint, secret_id, secret_key, namespace, default_profile, profiles } = file;
    let always = SettingsLayer { endpoint, secret_id, secret_key, token: None, namespace };
    let chosen = match global.profile.clone().or(default_profile) {
        None => profiles.get("default").cloned().unwrap_or_default(),
        Some(name) => profiles.get(&name).cloned().ok_or_else(|| {
            let known: Vec<_> = profiles.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            Error::file(&path, format!("it has no [profiles.{name}]; its profiles: {known}"))
        })?,
    };
    Ok(chosen.or(always))
}

fn left_by_server() -> SettingsLayer {
    let path = hanshu_server::default_data_dir().map(|dir| dir.join("credentials.env"));
    path.map(|path| credentials(&path)).unwrap_or_default()
}

/// Reads `NAME=value` lines. A file that cannot be read is taken as empty.
fn credentials(path: &Path) -> SettingsLayer {
    let mut layer = SettingsLayer::default();
    for line in std::fs::read_to_string(path).unwrap_or_default().lines() {
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = value.to_owned();
        match name {
            "HANSHU_ENDPOINT" => layer.endpoint = Some(value),
            "HANSHU_SECRET_ID" => layer.secret_id = Some(value),
            "HANSHU_SECRET_KEY" => layer.secret_key = Some(Secret::new(value)),
            _ => {}
        }
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_s_credentials_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.env");
        std::fs::write(
            &path,
            "HANSHU_ENDPOINT=http://x:1\nHANSHU_SECRET_ID=a\nHANSHU_SECRET_KEY=b=\n",
        )
        .unwrap();
        let layer = credentials(&path);
        assert_eq!(layer.endpoint.as_deref(), Some("http://x:1"));
        assert_eq!(layer.secret_key.unwrap().expose(), "b=");
        assert!(credentials(&dir.path().join("none")).endpoint.is_none());
    }

    #[test]
    fn a_sandbox_s_token_is_weaker_than_a_key_that_is_given_and_stronger_than_a_file_s() {
        let key = |id: &str| SettingsLayer {
            secret_id: Some(id.into()),
            secret_key: Some(Secret::new("s")),
            ..SettingsLayer::default()
        };
        let token = SettingsLayer { token: Some(Secret::new("t")), ..SettingsLayer::default() };
        let none = SettingsLayer::default;
        let chosen = |layers: [SettingsLayer; 4]| match auth(&layers) {
            Some(ClientAuth::Key { id, .. }) => id,
            Some(ClientAuth::Token(token)) => token.expose().to_owned(),
            None => "none".into(),
        };
        assert_eq!(chosen([key("flag"), token.clone(), none(), none()]), "flag");
        assert_eq!(chosen([none(), token, key("file"), none()]), "t");
        assert_eq!(chosen([none(), none(), none(), key("file")]), "file");
        assert_eq!(chosen([none(), none(), none(), none()]), "none");
    }
}
