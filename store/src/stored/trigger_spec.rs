//! What a trigger does, a JSON column of the table `triggers`.

use std::borrow::Cow;

use hanshu_core::{HttpAuth, Secret, TriggerSpec};
use serde::{Deserialize, Serialize};

use super::version::FormatVersion;

/// A [`TriggerSpec`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredTriggerSpec<'a> {
    #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
    format: FormatVersion<1>,
    #[serde(flatten)]
    settings: StoredTriggerSettings<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
enum StoredTriggerSettings<'a> {
    Timer {
        cron: Cow<'a, str>,
        timezone: Option<Cow<'a, str>>,
        argument: Cow<'a, str>,
    },
    Http {
        path: Cow<'a, str>,
        methods: Cow<'a, [String]>,
        auth: StoredHttpAuth,
        key: Option<Cow<'a, Secret>>,
    },
    Redis {
        url: Cow<'a, Secret>,
        stream: Cow<'a, str>,
        batch: u32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredHttpAuth {
    None,
    Key,
}

impl<'a> From<&'a TriggerSpec> for StoredTriggerSpec<'a> {
    fn from(spec: &'a TriggerSpec) -> Self {
        let settings = match spec {
            TriggerSpec::Timer { cron, timezone, argument } => StoredTriggerSettings::Timer {
                cron: cron.into(),
                timezone: timezone.as_ref().map(Cow::from),
                argument: argument.into(),
            },
            TriggerSpec::Http { path, methods, auth, key } => StoredTriggerSettings::Http {
                path: path.into(),
                methods: methods.into(),
                auth: match auth {
                    HttpAuth::None => StoredHttpAuth::None,
                    HttpAuth::Key => StoredHttpAuth::Key,
                },
                key: key.as_ref().map(Cow::Borrowed),
            },
            TriggerSpec::Redis { url, stream, batch } => StoredTriggerSettings::Redis {
                url: Cow::Borrowed(url),
                stream: stream.into(),
                batch: *batch,
            },
        };
        Self { format: FormatVersion::newest(), settings }
    }
}

impl From<StoredTriggerSpec<'_>> for TriggerSpec {
    fn from(stored: StoredTriggerSpec<'_>) -> Self {
        match stored.settings {
            StoredTriggerSettings::Timer { cron, timezone, argument } => Self::Timer {
                cron: cron.into_owned(),
                timezone: timezone.map(Cow::into_owned),
                argument: argument.into_owned(),
            },
            StoredTriggerSettings::Http { path, methods, auth, key } => Self::Http {
                path: path.into_owned(),
                methods: methods.into_owned(),
                auth: match auth {
                    StoredHttpAuth::None => HttpAuth::None,
                    StoredHttpAuth::Key => HttpAuth::Key,
                },
                key: key.map(Cow::into_owned),
            },
            StoredTriggerSettings::Redis { url, stream, batch } => {
                Self::Redis { url: url.into_owned(), stream: stream.into_owned(), batch }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_is_read_and_written() {
        for text in [
            r#"{"type":"timer","cron":"*/5 * * * * * *","timezone":null,"argument":"x"}"#,
            r#"{"type":"timer","cron":"0 0 * * *","timezone":"Asia/Shanghai","argument":""}"#,
            r#"{"type":"http","path":"/hello/{name}","methods":["GET"],"auth":"key","key":"k"}"#,
            r#"{"type":"http","path":"/x","methods":[],"auth":"none","key":null}"#,
            r#"{"type":"redis","url":"redis://:secret@host/0","stream":"orders","batch":10}"#,
        ] {
            let stored: StoredTriggerSpec<'_> = serde_json::from_str(text).unwrap();
            let spec = TriggerSpec::from(stored);
            assert_eq!(serde_json::to_string(&StoredTriggerSpec::from(&spec)).unwrap(), text);
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let text = r#"{"format":2,"type":"timer","cron":"","timezone":null,"argument":""}"#;
        assert!(serde_json::from_str::<StoredTriggerSpec<'_>>(text).is_err());
    }
}
