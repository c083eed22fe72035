//! The `START` message: command line, environment and limits of a revision's runtime (scf.md §6.3).
//! Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use hanshu_core::{AdapterKind, CommandWord, Revision, RuntimeFamily};
use hanshu_runtimes::wire::{InitMessage, RuntimeAdapter, StartMessage};

use crate::backend::port::CODE_DIR;
use crate::config::InvokerOptions;
use crate::sandbox::shape::SandboxShape;

/// Where the platform's own files are inside a sandbox.
const RUNTIME_DIR: &str = "/var/runtime";
/// The TCP port of the adapters *go* and *custom* (scf.md §6.3 names it). It can be the same in every
/// sandbox: a runtime that listens has a network namespace of its own.
const PORT: u16 = 28902;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The `START` message for a revision.
pub(crate) fn start_message(revision: &Revision, options: &InvokerOptions) -> StartMessage {
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
        timeout_ms: to_millis(config.timeout),
        init_timeout_ms: to_millis(config.init_timeout),
        user_env: config.env.clone(),
        port: PORT,
    };
    let argv = argv_of(family, config.memory_mb, &config.handler, options);
    StartMessage { argv, env: env_of(revision, options), init }
}

/// The `START` message for a prewarmed sandbox: the same without a function, whose part comes with a
/// later `INIT`.
pub(crate) fn prewarmed_start_message(
    shape: SandboxShape,
    options: &InvokerOptions,
) -> StartMessage {
    let init = InitMessage {
        adapter: adapter_of(shape.family),
        cwd: CODE_DIR.into(),
        handler: String::new(),
        function_name: String::new(),
        function_version: String::new(),
        namespace: String::new(),
        memory_mb: shape.memory_mb,
        timeout_ms: 0,
        init_timeout_ms: 0,
        user_env: BTreeMap::new(),
        port: PORT,
    };
    let argv = argv_of(shape.family, shape.memory_mb, "", options);
    StartMessage { argv, env: default_env(), init }
}

/// Whole milliseconds, as the wire has them.
pub(crate) fn to_millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn adapter_of(family: RuntimeFamily) -> RuntimeAdapter {
    match family.profile().adapter {
        AdapterKind::Direct => RuntimeAdapter::Direct,
        AdapterKind::Go => RuntimeAdapter::Go,
        AdapterKind::Shell => RuntimeAdapter::Shell,
        AdapterKind::Custom => RuntimeAdapter::Custom,
    }
}

fn argv_of(
    family: RuntimeFamily,
    memory_mb: u32,
    handler: &str,
    options: &InvokerOptions,
) -> Vec<String> {
    let profile = family.profile();
    let to_text = |word: &CommandWord| match word {
        CommandWord::Text(text) => (*text).to_owned(),
        CommandWord::HostProgram => {
            let program = profile.host_program.as_ref();
            program.map(|program| options.program(program).to_owned()).unwrap_or_default()
        }
        CommandWord::Bootstrap => {
            format!("{RUNTIME_DIR}/{}", profile.bootstrap.unwrap_or_default())
        }
        CommandWord::Handler => format!("{CODE_DIR}/{handler}"),
        CommandWord::CodeFile(file) => format!("{CODE_DIR}/{file}"),
        CommandWord::WithMemoryMb(text) => format!("{text}{memory_mb}"),
    };
    profile.command.iter().map(to_text).collect()
}

/// The variables of every function, unless it sets them itself. A prewarmed interpreter is started
/// with them.
fn default_env() -> BTreeMap<String, String> {
    let defaults = [
        ("PATH", PATH),
        ("PWD", CODE_DIR),
        // SCF has /home/qcloud, which is not writable here.
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
    defaults.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The runtime's whole environment. The function's own variables replace the defaults, but not those
/// that identify it.
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
    let mut env = default_env();
    env.extend(config.env.clone());
    env.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
    env
}

#[cfg(test)]
mod tests {
    use hanshu_runtimes::runtime_dir::RUNTIME_FILES;

    use super::*;
    use crate::test_support::revision;

    fn start(runtime: &str, handler: &str) -> StartMessage {
        let mut revision = revision("hello");
        revision.config.runtime = runtime.parse().unwrap();
        revision.config.handler = handler.into();
        revision.config.env = [("HOME", "/var/user"), ("SCF_NAMESPACE", "forged")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        start_message(&revision, &InvokerOptions::default())
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
    fn each_bootstrap_is_one_of_the_embedded_files() {
        let bootstraps = RuntimeFamily::all().filter_map(|family| family.profile().bootstrap);
        for bootstrap in bootstraps {
            assert!(RUNTIME_FILES.iter().any(|(path, _)| *path == bootstrap), "{bootstrap}");
        }
    }

    #[test]
    fn a_function_may_change_its_home_but_not_its_name() {
        let start = start("python", "index.main_handler");
        assert_eq!(start.env["HOME"], "/var/user");
        assert_eq!(start.env["SCF_NAMESPACE"], "default");
        assert_eq!(start.env["SCF_RUNTIME"], "python");
        assert_eq!(start.init.user_env["HOME"], "/var/user");
    }
}
