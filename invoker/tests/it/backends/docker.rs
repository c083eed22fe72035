//! What holds for containers only.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use hanshu_core::{ErrorKind, RuntimeFamily};
use hanshu_invoker::{
    DockerBackend, DockerOptions, NetworkAccess, SandboxBackend as _, SandboxOwner, StartError,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::bench::{BenchNode, is_root};
use super::{docker, docker_options};

const SOCKET: &str = "/var/run/docker.sock";

#[tokio::test]
async fn a_start_without_its_image_asks_for_a_deploy() {
    let node = BenchNode::new();
    let Some(backend) = docker(&node).await else { return };
    let image = "hanshu/nodejs:000000000000".to_owned();
    let mut spec = node.spec(RuntimeFamily::NODEJS, NetworkAccess::None);
    spec.image.clone_from(&image);
    std::fs::create_dir_all(&spec.run_dir).unwrap();
    let error = backend.start(&spec).await.unwrap_err();
    assert!(matches!(error, StartError::Image(_)), "{error:?}");
    assert!(error.to_string().contains(&image), "{error}");
    backend.close().await;
}

#[tokio::test]
async fn a_prewarmed_sandbox_sees_the_code_that_it_is_given_and_cannot_change_it() {
    let node = BenchNode::new();
    let Some(backend) = docker(&node).await else { return };
    if !is_root() {
        assert!(backend.prewarming().is_err(), "only root may mount");
        return;
    }
    assert_eq!(backend.prewarming(), Ok(()));
    let prewarmed = || {
        let mut spec = node.spec(RuntimeFamily::PYTHON, NetworkAccess::None);
        spec.owner = SandboxOwner::Unassigned;
        spec.mounts.clear();
        spec
    };
    let mut one = node.start(&backend, prewarmed()).await;
    let mut other = node.start(&backend, prewarmed()).await;
    assert!(one.sandbox.freeze() && one.sandbox.thaw());
    one.sandbox.give_code(&node.dir.path().join("code")).await.unwrap();
    let look = "cd /var/user; ls; cat index.py; (touch new; rm index.py; echo > index.py) 2>&1 | \
                grep -c 'Read-only'; touch /tmp/new && echo tmp";
    let (_, output) = one.run(look);
    assert_eq!(output, "index.py\nx = 1\n3\ntmp\n");
    let (_, output) = other.run("ls -A /var/user | wc -l");
    assert_eq!(output, "0\n", "code that is given to one is not visible in another");
    one.sandbox.stop().await;
    let late = other.sandbox.give_code(&node.dir.path().join("code")).await;
    assert!(late.is_err(), "its container has ended: the code is not seen inside");
    other.sandbox.stop().await;
    backend.close().await;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&node.dir.path().display().to_string()), "{mounts}");
    assert_eq!(std::fs::read(node.dir.path().join("code/index.py")).unwrap(), b"x = 1\n");
}

#[tokio::test]
async fn containers_cannot_reach_each_other_or_the_host() {
    let node = BenchNode::new();
    let Some(backend) = docker(&node).await else { return };
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut one =
        node.start(&backend, node.spec(RuntimeFamily::PYTHON, NetworkAccess::Bridge)).await;
    let serve = "hostname -i; exec /usr/bin/python3 -m http.server 8000 -d /tmp";
    one.begin(serve);
    let mut address = String::new();
    let since = Instant::now();
    while !address.contains('\n') {
        assert!(since.elapsed() < super::bench::WAIT_MAX);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        address += &one.new_output();
    }
    let address = address.lines().next().unwrap().trim().to_owned();
    let gateway = address.rsplit_once('.').unwrap().0.to_owned() + ".1";
    let reach = |host: &str, port: u16| {
        format!(
            "timeout 1 bash -c 'echo > /dev/tcp/{host}/{port}' 2>/dev/null && echo reached {host}; "
        )
    };
    let mut script = reach(&address, 8000);
    if super::holds(&backend, "network without the host's services") {
        script += &(reach("169.254.169.254", 80) + &reach(&gateway, port));
    }
    let mut other =
        node.start(&backend, node.spec(RuntimeFamily::PYTHON, NetworkAccess::Bridge)).await;
    let (_, output) = other.run(&(script + "echo done"));
    one.sandbox.stop().await;
    other.sandbox.stop().await;
    assert_eq!(output, "done\n");
    backend.close().await;
    if is_root() {
        let rules = Command::new("iptables").args(["-w", "-S"]).output().unwrap();
        let rules = String::from_utf8(rules.stdout).unwrap();
        assert!(!rules.contains(&format!("hanshu:{}", node.id)), "{rules}");
    }
}

/// An engine that can be taken away: a socket that hands everything on to the real one.
fn relay(path: PathBuf) -> JoinHandle<()> {
    let listener = UnixListener::bind(&path).unwrap();
    let tasks = TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tasks.spawn(async move {
                let Ok(mut far) = UnixStream::connect(SOCKET).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    })
}

#[tokio::test]
async fn an_engine_that_went_away_is_used_again_when_it_is_back() {
    let node = BenchNode::new();
    if docker(&node).await.is_none() {
        return;
    }
    let socket = node.dir.path().join("engine.sock");
    let engine = Some(format!("unix://{}", socket.display()));
    let relaying = relay(socket.clone());
    let options = DockerOptions { engine, ..docker_options(&node) };
    let backend = DockerBackend::connect(options, node.tasks.clone()).await.unwrap();
    backend.sweep().await.unwrap();
    let left = node.start(&backend, node.spec(RuntimeFamily::SHELL, NetworkAccess::None)).await;
    take_away(&relaying, &socket);

    let since = Instant::now();
    let error =
        backend.start(&node.spec(RuntimeFamily::SHELL, NetworkAccess::None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("does not answer"), "{error}");
    assert!(since.elapsed().as_secs() < 5);
    // It cannot be removed now; a sweep after the engine's return does it.
    left.sandbox.stop().await;
    assert_eq!(containers(&node), 1);

    let relaying = relay(socket.clone());
    until("what was left is swept", async || containers(&node) == 0).await;
    let again = node.start(&backend, node.spec(RuntimeFamily::SHELL, NetworkAccess::None)).await;
    assert_eq!(containers(&node), 1);
    again.sandbox.stop().await;
    assert_eq!(containers(&node), 0);
    backend.close().await;
    take_away(&relaying, &socket);
}

/// Looks every tenth of a second, for half a minute at most.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    for _ in 0..300 {
        if so().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("in vain: {what}");
}

fn take_away(relaying: &JoinHandle<()>, socket: &Path) {
    relaying.abort();
    std::fs::remove_file(socket).unwrap();
}

fn containers(node: &BenchNode) -> usize {
    let label = format!("label=hanshu={}", node.id);
    let listed = Command::new("docker").args(["ps", "-aq", "--filter", &label]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().lines().count()
}
