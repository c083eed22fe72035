//! A function's configuration, a JSON column of the table `revisions`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use hanshu_core::{AsyncPolicy, FunctionConfig, Runtime};
use serde::{Deserialize, Serialize};

use super::version::FormatVersion;

/// A [`FunctionConfig`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredFunctionConfig<'a> {
    #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
    format: FormatVersion<1>,
    runtime: Cow<'a, Runtime>,
    handler: Cow<'a, str>,
    memory_mb: u32,
    timeout: Duration,
    init_timeout: Duration,
    concurrency: Option<u32>,
    network: Option<bool>,
    async_policy: StoredAsyncPolicy,
    env: Cow<'a, BTreeMap<String, String>>,
}

/// An [`AsyncPolicy`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct StoredAsyncPolicy {
    max_attempts: u32,
    retry_delay: Duration,
    max_age: Duration,
    max_waiting: u32,
}

impl<'a> From<&'a FunctionConfig> for StoredFunctionConfig<'a> {
    fn from(config: &'a FunctionConfig) -> Self {
        let FunctionConfig {
            runtime,
            handler,
            memory_mb,
            timeout,
            init_timeout,
            concurrency,
            network,
            async_policy: AsyncPolicy { max_attempts, retry_delay, max_age, max_waiting },
            env,
        } = config;
        Self {
            format: FormatVersion::newest(),
            runtime: Cow::Borrowed(runtime),
            handler: handler.into(),
            memory_mb: *memory_mb,
            timeout: *timeout,
            init_timeout: *init_timeout,
            concurrency: *concurrency,
            network: *network,
            async_policy: StoredAsyncPolicy {
                max_attempts: *max_attempts,
                retry_delay: *retry_delay,
                max_age: *max_age,
                max_waiting: *max_waiting,
            },
            env: Cow::Borrowed(env),
        }
    }
}

impl From<StoredFunctionConfig<'_>> for FunctionConfig {
    fn from(stored: StoredFunctionConfig<'_>) -> Self {
        let StoredAsyncPolicy { max_attempts, retry_delay, max_age, max_waiting } =
            stored.async_policy;
        Self {
            runtime: stored.runtime.into_owned(),
            handler: stored.handler.into_owned(),
            memory_mb: stored.memory_mb,
            timeout: stored.timeout,
            init_timeout: stored.init_timeout,
            concurrency: stored.concurrency,
            network: stored.network,
            async_policy: AsyncPolicy { max_attempts, retry_delay, max_age, max_waiting },
            env: stored.env.into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_is_read_and_written() {
        let text = r#"{"runtime":"Python3.10","handler":"index.main_handler","memory_mb":128,"timeout":{"secs":3,"nanos":0},"init_timeout":{"secs":65,"nanos":0},"concurrency":null,"network":false,"async_policy":{"max_attempts":3,"retry_delay":{"secs":60,"nanos":0},"max_age":{"secs":21600,"nanos":0},"max_waiting":100000},"env":{"A":"1"}}"#;
        let stored: StoredFunctionConfig<'_> = serde_json::from_str(text).unwrap();
        let config = FunctionConfig::from(stored);
        assert_eq!(config.runtime.name(), "Python3.10");
        assert_eq!((config.network, config.timeout), (Some(false), Duration::from_secs(3)));
        assert_eq!(serde_json::to_string(&StoredFunctionConfig::from(&config)).unwrap(), text);
    }
}
