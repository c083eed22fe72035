//! A revision as its sandbox's shim and runtime are told of it: command line, environment, limits
//! (scf.md §6.3). Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use hanshu_core::{Revision, RuntimeFamily};
use hanshu_runtimes::wire::{InitMessage, RuntimeAdapter, StartMessage};

use crate::config::InvokerOptions;
use crate::sandbox::shape::SandboxShape;

/// Where the function's code is inside a sandbox.
const CODE_DIR: &str = "/var/user";
/// Where the adapters *go* and *custom* speak TCP (scf.md §6.3 names this port). It can be the same
/// everywhere: who listens has a network namespace of its own.
const PORT: u16 = 28902;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the shim is told in `START`.
pub(crate) fn start_of(revision: &Revision, options: &InvokerOptions) -> StartMessage {
    let config = &revision.config;
    let family = config.runtime.family();
    let init = InitMessage {
        adapter: adapter_of(family),
        cwd: CODE_DIR.into(),
        handler: config.handler.clone(),
        function_name: revision.function.name.to_string(),
        function_version: revision.version.to_string(),
        namespace: revision.function.namespace.to_string(),
        memory_mb: config.memory_mb,
        timeout_ms: millis(config.timeout),
        init_timeout_ms: millis(config.init_timeout),
        user_env: config.env.clone(),
        port: PORT,
    };
    let argv = argv_of(family, config.memory_mb, &config.handler, options);
    StartMessage { argv, env: env_of(revision, options), init }
}

/// What the shim of a prewarmed sandbox is told: the same, without a function. What is missing comes with
/// a late `INIT`.
pub(crate) fn start_of_prewarmed(kind: &SandboxShape, options: &InvokerOptions) -> StartMessage {
    let init = InitMessage {
        adapter: adapter_of(kind.family),
        cwd: CODE_DIR.into(),
        handler: String::new(),
        function_name: String::new(),
        function_version: String::new(),
        namespace: String::new(),
        memory_mb: kind.memory_mb,
        timeout_ms: 0,
        init_timeout_ms: 0,
        user_env: BTreeMap::new(),
        port: PORT,
    };
    let argv = argv_of(kind.family, kind.memory_mb, "", options);
    StartMessage { argv, env: usual_env(), init }
}

/// Whole milliseconds, as the wire has them.
pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn adapter_of(family: RuntimeFamily) -> RuntimeAdapter {
    match family {
        RuntimeFamily::Python | RuntimeFamily::Nodejs => RuntimeAdapter::Direct,
        RuntimeFamily::Go => RuntimeAdapter::Go,
        RuntimeFamily::Shell => RuntimeAdapter::Shell,
        RuntimeFamily::Custom => RuntimeAdapter::Custom,
    }
}

fn argv_of(
    family: RuntimeFamily,
    memory_mb: u32,
    handler: &str,
    options: &InvokerOptions,
) -> Vec<String> {
    let in_code = |file: &str| format!("{CODE_DIR}/{file}");
    let heap = format!("--max-old-space-size={memory_mb}");
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    match family {
        // The bootstrap's first lines say what each flag is for.
        RuntimeFamily::Python => words(&[
            &options.python,
            "-I",
            "-S",
            "-B",
            "-u",
            "-X",
            "utf8",
            "/var/runtime/python/bootstrap.py",
        ]),
        RuntimeFamily::Nodejs => words(&[&options.node, &heap, "/var/runtime/node/bootstrap.cjs"]),
        RuntimeFamily::Go | RuntimeFamily::Shell => vec![in_code(handler)],
        RuntimeFamily::Custom => vec![in_code("bootstrap")],
    }
}

/// What every function's environment has, unless the function says otherwise. Interpreters that
/// were started with it need not be told of it again.
fn usual_env() -> BTreeMap<String, String> {
    let usual = [
        ("PATH", PATH),
        ("PWD", CODE_DIR),
        // SCF has /home/qcloud; a folder that cannot be written to helps nobody.
        ("HOME", "/tmp"),
        ("USER", "qcloud"),
        ("LOGNAME", "qcloud"),
        ("SHELL", "/bin/sh"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("PYTHONDONTWRITEBYTECODE", "x"),
        ("PYTHONPATH", "/var/user:/opt"),
        ("NODE_PATH", "/var/user:/var/user/node_modules:/opt:/opt/node_modules"),
        ("LD_LIBRARY_PATH", "/var/user:/var/user/lib:/opt/lib"),
    ];
    usual.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The runtime's whole environment. The function's own variables win over the usual ones and not
/// over those that say who it is.
fn env_of(revision: &Revision, options: &InvokerOptions) -> BTreeMap<String, String> {
    let config = &revision.config;
    let name = revision.function.name.to_string();
    let version = revision.version.to_string();
    let port = PORT.to_string();
    let own = [
        ("TENCENTCLOUD_RUNENV", "SCF".to_owned()),
        ("TENCENTCLOUD_REGION", options.region.clone()),
        ("TENCENTCLOUD_TZ", "UTC".to_owned()),
        ("SCF_RUNTIME", config.runtime.name().to_owned()),
        ("SCF_FUNCTIONNAME", name.clone()),
        ("SCF_FUNCTIONVERSION", version.clone()),
        ("SCF_NAMESPACE", revision.function.namespace.to_string()),
        ("SCF_RUNTIME_API", "127.0.0.1".to_owned()),
        ("SCF_RUNTIME_API_PORT", port.clone()),
        ("_SCF_SERVER_PORT", port.clone()),
        ("_LAMBDA_SERVER_PORT", port),
        ("_HANDLER", config.handler.clone()),
        ("FUNCTION_NAME", name),
        ("FUNCTION_VERSION", version),
        ("FUNCTION_MEMORY_SIZE", config.memory_mb.to_string()),
        ("USER_CODE_ROOT", "/var/user/".to_owned()),
    ];
    let mut env = usual_env();
    env.extend(config.env.clone());
    env.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::revision;

    fn start(runtime: &str, handler: &str) -> StartMessage {
        let mut revision = revision("hello");
        revision.config.runtime = runtime.parse().unwrap();
        revision.config.handler = handler.into();
        revision.config.env = [("HOME", "/var/user"), ("SCF_NAMESPACE", "forged")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        start_of(&revision, &InvokerOptions::default())
    }

    #[test]
    fn each_family_has_its_command_and_adapter() {
        let lines: Vec<_> = [
            ("Python3.10", "index.main_handler"),
            ("Nodejs18.15", "index.main_handler"),
            ("Go1", "main"),
            ("shell", "run.sh"),
            ("CustomRuntime", "any text"),
        ]
        .map(|(runtime, handler)| {
            let start = start(runtime, handler);
            format!("{:?} {}", start.init.adapter, start.argv.join(" "))
        })
        .into();
        insta::assert_snapshot!(lines.join("\n"), @"
        Direct /usr/bin/python3 -I -S -B -u -X utf8 /var/runtime/python/bootstrap.py
        Direct /usr/bin/node --max-old-space-size=128 /var/runtime/node/bootstrap.cjs
        Go /var/user/main
        Shell /var/user/run.sh
        Custom /var/user/bootstrap
        ");
    }

    #[test]
    fn a_function_may_move_its_home_but_not_its_name() {
        let start = start("python", "index.main_handler");
        assert_eq!(start.env["HOME"], "/var/user");
        assert_eq!(start.env["SCF_NAMESPACE"], "default");
        assert_eq!(start.env["SCF_RUNTIME"], "python");
        assert_eq!(start.init.user_env["HOME"], "/var/user");
    }
}
