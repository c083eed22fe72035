//! The command line: its exit codes, and what is on which stream.

use std::process::Command;

use serde_json::Value;

use crate::world::{HANSHU, PYTHON, Ran, World, folder};

const CODE: &str = "def main_handler(event, context):\n    print('to the log')\n    if event.get('bad'): raise ValueError('boom')\n    return {'ok': True}\n";

/// Without any server.
fn alone(args: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(HANSHU)
        .args(args)
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .unwrap();
    output.into()
}

#[test]
fn exit_codes_are_what_scripts_rely_on() {
    let world = World::start("process");
    world.deploy("hello", PYTHON, &[("index.py", CODE)]);
    let fine = world.hanshu(&["invoke", "hello"]);
    assert_eq!((fine.code, fine.stdout.as_str()), (0, "{\"ok\": true}\n"), "{fine:?}");
    assert_eq!(fine.stderr, "");
    let failed = world.hanshu(&["invoke", "hello", "--data", "{\"bad\":1}"]);
    assert_eq!(failed.code, 1);
    let error: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert_eq!(error["statusCode"], 430);
    assert_eq!(world.hanshu(&["invoke"]).code, 2);
    let refused = world.hanshu(&["invoke", "nobody"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (3, ""));
    assert!(refused.stderr.contains("nobody"), "{refused:?}");
    let unreached = world.hanshu(&["list", "--endpoint", "http://127.0.0.1:9"]);
    assert_eq!(unreached.code, 4);
    assert!(unreached.stderr.contains("hint:"), "{unreached:?}");
    assert_eq!(alone(&["list"]).code, 2, "no server is known");
}

#[test]
fn the_log_is_on_stderr_and_the_answer_alone_on_stdout() {
    let world = World::start("process");
    world.deploy("hello", PYTHON, &[("index.py", CODE)]);
    let ran = world.hanshu(&["invoke", "hello", "--log"]);
    assert_eq!(ran.stdout, "{\"ok\": true}\n");
    assert!(ran.stderr.contains("to the log"), "{ran:?}");
    let id = world.ok(&["invoke", "hello", "--async"]);
    assert_eq!(id.trim().len(), 36);
    let ran = world.hanshu(&["status", id.trim(), "--wait", "30"]);
    assert_eq!(ran.code, 0);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["state"], "succeeded");
    let log = world.log_of("hello", |log| 2 <= log.matches("END RequestId").count());
    for part in ["START RequestId: ", "to the log", "Report RequestId: ", "Duration:"] {
        assert!(log.contains(part), "`{part}` is not in:\n{log}");
    }
}

#[test]
fn a_deploy_is_idempotent_and_removes_what_the_file_no_longer_says() {
    let world = World::start("process");
    let trigger = "[[functions.hello.triggers]]\ntype = \"http\"\npath = \"/x\"\n";
    let dir = folder("hello", &format!("{PYTHON}{trigger}"), &[("index.py", CODE)]);
    let path = dir.path().to_str().unwrap();
    let deploy = || -> Value {
        serde_json::from_str(&world.ok(&["deploy", path, "--output", "json"])).unwrap()
    };
    let first = deploy();
    assert_eq!(
        (&first[0]["changed"], &first[0]["triggers"][0]["name"]),
        (&true.into(), &"http".into())
    );
    let again = deploy();
    assert_eq!(again[0]["changed"], false);
    assert_eq!(again[0]["digest"], first[0]["digest"]);
    std::fs::write(dir.path().join("hanshu.toml"), format!("[functions.hello]\n{PYTHON}")).unwrap();
    assert_eq!(deploy()[0]["removed"][0], "http");
    let shown: Value =
        serde_json::from_str(&world.ok(&["show", "hello", "--output", "json"])).unwrap();
    assert_eq!(shown["triggers"].as_array().unwrap().len(), 0);
    world.ok(&["delete", "hello"]);
    assert_eq!(world.hanshu(&["show", "hello"]).code, 3);
}

#[test]
fn init_makes_folders_that_deploy_as_they_are() {
    let world = World::start("process");
    for runtime in ["python", "nodejs", "go", "shell", "custom"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("my-{runtime}"));
        let path = path.to_str().unwrap();
        world.ok(&["init", path, "--runtime", runtime]);
        assert_eq!(
            world.hanshu(&["init", path, "--runtime", runtime]).code,
            2,
            "nothing is overwritten"
        );
        world.ok(&["deploy", path]);
        let event = format!("@{path}/event.json");
        let answer = world.ok(&["invoke", &format!("my-{runtime}"), "--data", &event]);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["message"].as_str().unwrap().starts_with("hello, "), "{runtime}: {answer}");
    }
}

#[test]
fn completions_and_version_need_no_server() {
    assert!(alone(&["completions", "bash"]).stdout.contains("_hanshu"));
    let version = alone(&["version"]);
    assert_eq!(version.code, 0);
    assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_the_server_says_of_a_value_names_its_line() {
    let world = World::start("process");
    let check = |settings: &str, parts: &[&str]| {
        let dir = folder("hello", settings, &[("index.py", CODE)]);
        let ran = world.hanshu(&["deploy", dir.path().to_str().unwrap()]);
        assert_eq!(ran.code, 3, "{ran:?}");
        for part in parts {
            assert!(ran.stderr.contains(part), "`{part}` is not in:\n{}", ran.stderr);
        }
    };
    // `folder` writes the head of the function itself: its settings begin in line 2.
    let line = 2 + PYTHON.lines().count();
    let at = |offset: usize| format!("hanshu.toml:{}: ", line + offset);
    check(&format!("{PYTHON}memory_mb = 100\n"), &[&at(0), "`memory_mb` is `100`", "hint:"]);
    let timer = "[[functions.hello.triggers]]\ntype = \"timer\"\n";
    check(&format!("{PYTHON}{timer}cron = \"* *\"\n"), &[&at(2), "cron line `* *`"]);
    let zone = "cron = \"* * * * *\"\ntimezone = \"Mars/Base\"\n";
    check(&format!("{PYTHON}{timer}{zone}"), &[&at(3), "Mars/Base"]);
}

#[test]
fn json_is_alone_on_stdout_and_quick_work_tells_nothing() {
    let world = World::start("process");
    let timer = "[[functions.hello.triggers]]\ntype = \"timer\"\ncron = \"0 9 * * *\"\n";
    let dir = folder("hello", &format!("{PYTHON}{timer}"), &[("index.py", CODE)]);
    let path = dir.path().to_str().unwrap();
    world.ok(&["deploy", path]);
    let again = world.hanshu(&["deploy", path]);
    assert_eq!(again.stderr, "", "a deploy of nothing new is over in less than a second");
    for args in [
        &["deploy", path][..],
        &["publish", "hello"],
        &["invoke", "hello"],
        &["invoke", "hello", "--async"],
        &["list"],
        &["show", "hello"],
        &["trigger", "list", "hello"],
        &["trigger", "disable", "hello"],
        &["trigger", "enable", "hello", "timer"],
        &["trigger", "fire", "hello"],
        &["queues"],
        &["version"],
        &["delete", "hello"],
    ] {
        let args: Vec<_> = args.iter().copied().chain(["--output", "json"]).collect();
        let ran = world.hanshu(&args);
        let read = serde_json::from_str::<Value>(&ran.stdout);
        assert!(read.is_ok() && ran.code == 0, "{args:?}: {ran:?}");
    }
}

#[test]
fn a_namespace_of_the_environment_is_that_of_every_command() {
    let world = World::start("process");
    let dir = folder("hello", PYTHON, &[("index.py", CODE)]);
    let path = dir.path().to_str().unwrap();
    let said = [("HANSHU_NAMESPACE", "shop")];
    assert_eq!(world.hanshu_with(&["deploy", path], &said).code, 0);
    assert_eq!(world.hanshu_with(&["invoke", "hello"], &said).code, 0);
    assert_eq!(world.hanshu(&["invoke", "hello"]).code, 3);
    assert_eq!(world.hanshu(&["logs", "hello"]).code, 3, "no such function: no empty log");
    assert_eq!(world.hanshu(&["logs", "hello", "--namespace", "shop"]).code, 0);
    let fired = world.hanshu_with(&["trigger", "fire", "hello"], &said);
    assert!(fired.code == 2 && fired.stderr.contains("has no timer"), "{fired:?}");
}
