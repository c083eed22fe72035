//! The digest that names a revision: SHA-256 of a canonical form of its function, configuration
//! and package.
//!
//! The form must never change for a configuration that is deployed somewhere: an unchanged function
//! that is deployed again has to be the same revision. It is therefore apart from
//! [`FunctionConfig`]. The fields of the first form are always written. A field that came later is
//! written only where its value differs from the default, which is what its absence meant before:
//! give it `skip_serializing_if`, after the others.

use std::collections::BTreeMap;
use std::time::Duration;

use hanshu_core::{AsyncPolicy, Digest, FunctionConfig, FunctionId};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// The form's version, its first element.
const FORM: u32 = 1;

/// A [`FunctionConfig`] in its canonical form.
#[derive(Serialize)]
struct CanonicalConfig<'a> {
    runtime: &'a str,
    handler: &'a str,
    memory_mb: u32,
    timeout: Duration,
    init_timeout: Duration,
    concurrency: Option<u32>,
    network: Option<bool>,
    async_policy: CanonicalAsyncPolicy,
    env: &'a BTreeMap<String, String>,
}

/// An [`AsyncPolicy`] in its canonical form.
#[derive(Serialize)]
struct CanonicalAsyncPolicy {
    max_attempts: u32,
    retry_delay: Duration,
    max_age: Duration,
    max_waiting: u32,
}

/// A [`FunctionId`] in its canonical form.
#[derive(Serialize)]
struct CanonicalFunction<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// Names a revision. The function is part of it: equal code of two functions never shares a
/// sandbox.
///
/// # Errors
/// The configuration cannot be written as JSON.
pub(crate) fn revision_digest(
    function: &FunctionId,
    config: &FunctionConfig,
    code: &Digest,
) -> serde_json::Result<Digest> {
    digest_of(function, &CanonicalConfig::from(config), code)
}

fn digest_of(
    function: &FunctionId,
    config: &impl Serialize,
    code: &Digest,
) -> serde_json::Result<Digest> {
    let FunctionId { namespace, name } = function;
    let function = CanonicalFunction { namespace: namespace.as_str(), name: name.as_str() };
    let text = serde_json::to_vec(&(FORM, function, config, code.as_str()))?;
    Ok(Digest::from_bytes(Sha256::digest(text).into()))
}

impl<'a> From<&'a FunctionConfig> for CanonicalConfig<'a> {
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
            runtime: runtime.name(),
            handler,
            memory_mb: *memory_mb,
            timeout: *timeout,
            init_timeout: *init_timeout,
            concurrency: *concurrency,
            network: *network,
            async_policy: CanonicalAsyncPolicy {
                max_attempts: *max_attempts,
                retry_delay: *retry_delay,
                max_age: *max_age,
                max_waiting: *max_waiting,
            },
            env,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "f98218059b7753b2f10ef637edd61cd47a4ca4b67d906cdcb890b5a41ecc8601";

    fn function(name: &str) -> FunctionId {
        FunctionId { namespace: "default".parse().unwrap(), name: name.parse().unwrap() }
    }

    fn code() -> Digest {
        CODE.parse().unwrap()
    }

    fn config(runtime: &str, handler: &str) -> FunctionConfig {
        FunctionConfig {
            runtime: runtime.parse().unwrap(),
            handler: handler.into(),
            memory_mb: 128,
            timeout: Duration::from_secs(3),
            init_timeout: Duration::from_secs(65),
            concurrency: None,
            network: None,
            async_policy: AsyncPolicy::default(),
            env: BTreeMap::new(),
        }
    }

    fn hello_node() -> FunctionConfig {
        let (concurrency, network) = (Some(4), Some(false));
        FunctionConfig { concurrency, network, ..config("nodejs", "index.main_handler") }
    }

    fn hello_go() -> FunctionConfig {
        FunctionConfig {
            memory_mb: 64,
            timeout: Duration::from_secs(900),
            init_timeout: Duration::from_secs(300),
            ..config("Go1", "program")
        }
    }

    fn hello() -> FunctionConfig {
        FunctionConfig {
            memory_mb: 256,
            timeout: Duration::from_secs(30),
            init_timeout: Duration::from_secs(10),
            env: [("EMPTY", ""), ("GREETING", "héllo 函数")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..config("Python3.10", "index.main_handler")
        }
    }

    /// Digests of revisions that earlier programs deployed.
    #[test]
    fn a_function_that_is_deployed_again_is_the_same_revision_for_ever() {
        for (name, config, digest) in [
            (
                "hello-node",
                hello_node(),
                "9ffb6cdfe1b9e33048af4d8652eb4d4a386376f364a7308a358aaf9621b07cc2",
            ),
            (
                "hello-go",
                hello_go(),
                "27e79c63e27bde267f91459aee730a24203c55bb2aa90aee668e937880cc6320",
            ),
            ("hello", hello(), "c57b9995d9ac8c0a06a27c97db249cee010dbf6ba3f9c9cc5817372615a4da8a"),
        ] {
            let found = revision_digest(&function(name), &config, &code()).unwrap();
            assert_eq!(found.as_str(), digest, "{name}");
        }
    }

    /// A later form: one more field, which has a default.
    #[derive(Serialize)]
    struct LaterConfig<'a> {
        #[serde(flatten)]
        first: CanonicalConfig<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        image: Option<&'a str>,
    }

    #[test]
    fn a_later_field_counts_only_where_it_is_not_the_default() {
        let (function, config) = (function("hello"), hello());
        let with = |image| {
            let later = LaterConfig { first: CanonicalConfig::from(&config), image };
            digest_of(&function, &later, &code()).unwrap()
        };
        assert_eq!(with(None), revision_digest(&function, &config, &code()).unwrap());
        assert_ne!(with(None), with(Some("debian")));
    }

    #[test]
    fn whatever_differs_is_another_revision() {
        let digest = |name: &str, config: &FunctionConfig, code: &Digest| {
            revision_digest(&function(name), config, code).unwrap()
        };
        let base = digest("hello", &hello(), &code());
        assert_ne!(base, digest("other", &hello(), &code()));
        assert_ne!(base, digest("hello", &hello(), &Digest::from_bytes([7; 32])));
        assert_ne!(base, digest("hello", &hello_go(), &code()));
        let env = BTreeMap::new();
        assert_ne!(base, digest("hello", &FunctionConfig { env, ..hello() }, &code()));
    }
}
