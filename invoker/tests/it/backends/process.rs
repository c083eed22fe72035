//! What holds of process sandboxes alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Instant;

use hanshu_core::RuntimeFamily;
use hanshu_invoker::{
    NetworkAccess, ProcessBackend, ProcessOptions, SandboxBackend as _, StartError,
};

use super::bench::{BenchNode, WAIT_MAX, is_root, program};
use super::process;

#[tokio::test]
async fn who_listens_does_so_on_a_loopback_of_its_own() {
    let node = BenchNode::new();
    let backend = process(&node).await;
    assert_eq!(backend.default_network(true), NetworkAccess::None);
    assert_eq!(backend.default_network(false), NetworkAccess::Bridge);
    let script = "tail -n +3 /proc/net/dev | wc -l";
    let mut running =
        node.start(&backend, node.spec(RuntimeFamily::GO, NetworkAccess::Bridge)).await;
    assert_eq!(running.run(script).1, "1\n");
    running.sandbox.stop().await;
    // Other tests' containers come and go, and their devices with them.
    let hosts = || fs::read_to_string("/proc/net/dev").unwrap().lines().count() - 2;
    let since = Instant::now();
    loop {
        let before = hosts();
        let (_, output) = node.run(&backend, script).await;
        if before == hosts() {
            assert_eq!(output, format!("{before}\n"));
            break;
        }
        assert!(since.elapsed() < WAIT_MAX, "the host's devices never stay the same");
    }
    backend.close().await;
}

#[tokio::test]
async fn a_host_without_isolation_is_refused_with_the_reason() {
    let node = BenchNode::new();
    let options = ProcessOptions {
        node: node.id.clone(),
        dir: node.dir.path().join("process"),
        runtime_dir: node.dir.path().join("none"),
        shown: Vec::new(),
    };
    let error = ProcessBackend::new(options, node.tasks.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("none/hanshu"), "{error}");
}

/// Runs this file's neighbours once more as a user without rights.
#[test]
fn all_of_it_holds_for_a_server_that_is_not_root() {
    if !is_root() {
        // Then everything else here ran as such a user already.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &std::path::Path, name: &str| {
        let to = dir.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let program = copy(program(), "program");
    let ended = Command::new("runuser")
        .args(["-u", "nobody", "--"])
        .arg(&tests)
        .args(["backends::", "--skip", "backends::docker::"])
        .env("HANSHU_TEST_PROGRAM", program)
        .env("HANSHU_TEST_PROCESS_ONLY", "1")
        .env("TMPDIR", "/tmp")
        .current_dir("/")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{output}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(output.contains("a_fork_bomb_meets_its_limit ... ok"), "{output}");
}
