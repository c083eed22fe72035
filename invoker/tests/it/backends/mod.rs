//! What every backend must hold, on each that can be had here. Slow: real sandboxes.
//!
//! A test takes a backend from [`backends`], so that each sentence is checked on Docker and on
//! processes alike; what a backend says it does not hold (`guarantees`) is not asked of it.

pub(crate) mod bench;
mod docker;
mod process;

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hanshu_core::RuntimeFamily;
use hanshu_core::ports::ImageBuilder as _;
use hanshu_invoker::{
    DockerBackend, DockerOptions, GuaranteeLevel, NetworkAccess, ProcessBackend, ProcessOptions,
    SandboxBackend,
};

use bench::{BenchNode, is_root};

async fn process(node: &BenchNode) -> ProcessBackend {
    let options = ProcessOptions {
        node: node.id.clone(),
        dir: node.dir.path().join("process"),
        runtime_dir: node.runtime_dir(),
        shown: Vec::new(),
    };
    ProcessBackend::new(options, node.tasks.clone()).await.unwrap()
}

fn docker_options(node: &BenchNode) -> DockerOptions {
    DockerOptions {
        node: node.id.clone(),
        engine: None,
        dir: node.dir.path().join("docker"),
        runtime_dir: node.runtime_dir(),
    }
}

/// Docker with the images that tests need; `None` where no engine answers, which CI must have.
async fn docker(node: &BenchNode) -> Option<DockerBackend> {
    if std::env::var_os("HANSHU_TEST_PROCESS_ONLY").is_some() {
        return None;
    }
    match DockerBackend::connect(docker_options(node), node.tasks.clone()).await {
        Ok(backend) => {
            let images = backend.images();
            // Other test programs run beside this one: what one of them builds, the others find.
            let turn = fs::File::create(std::env::temp_dir().join("hanshu-test-images")).unwrap();
            turn.lock().unwrap();
            for family in [RuntimeFamily::PYTHON, RuntimeFamily::SHELL] {
                images.ensure(family, &|_: &str| {}).await.unwrap();
            }
            Some(backend)
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "CI tests Docker: {error}");
            let _ = writeln!(std::io::stderr(), "not tested on Docker: {error}");
            None
        }
    }
}

/// Every backend that can be had here.
pub(crate) async fn each_backend(node: &BenchNode) -> Vec<Arc<dyn SandboxBackend>> {
    backends(node).await
}

async fn backends(node: &BenchNode) -> Vec<Arc<dyn SandboxBackend>> {
    let mut all: Vec<Arc<dyn SandboxBackend>> = vec![Arc::new(process(node).await)];
    if let Some(docker) = docker(node).await {
        all.push(Arc::new(docker));
    }
    all
}

fn holds(backend: &dyn SandboxBackend, what: &str) -> bool {
    let table = backend.guarantees();
    let row = table.iter().find(|row| row.what == what);
    row.unwrap_or_else(|| panic!("no guarantee `{what}`")).level == GuaranteeLevel::Full
}

#[tokio::test]
async fn a_sandbox_has_its_own_user_and_no_rights() {
    let node = BenchNode::new();
    for backend in backends(&node).await {
        let spec = node.spec(RuntimeFamily::PYTHON, NetworkAccess::None);
        let uid = spec.uid;
        let mut running = node.start(&*backend, spec).await;
        let script = "id -u; id -g; id -G; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; pwd; \
                      echo $$; ulimit -n; ulimit -c";
        let (ended, output) = running.run(script);
        running.sandbox.stop().await;
        assert_eq!(ended.code, Some(0), "{}: {output}", backend.name());
        let mut lines = output.lines();
        if holds(&*backend, "own user per sandbox") {
            let uid = uid.to_string();
            assert_eq!([lines.next(), lines.next(), lines.next()], [Some(&*uid); 3]);
        } else {
            assert!(lines.by_ref().take(3).all(|line| !line.starts_with("0")));
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(lines.next(), Some(&*format!("{set}:\t0000000000000000")));
        }
        assert_eq!(lines.next(), Some("NoNewPrivs:\t1"));
        assert_eq!(lines.next(), Some("/var/user"));
        assert!(lines.next().unwrap().parse::<u32>().unwrap() < 20, "it sees other processes");
        assert_eq!([lines.next(), lines.next()], [Some("1024"), Some("0")]);
        backend.close().await;
    }
}

#[tokio::test]
async fn only_tmp_can_be_written_to() {
    let node = BenchNode::new();
    for backend in backends(&node).await {
        let script = "for at in / /usr /etc /var/user /var/runtime /run/hanshu /home /opt; do \
                      (echo x > $at/written) 2>/dev/null && echo wrote to $at; done; \
                      rm -f /run/hanshu/out 2>/dev/null && echo removed the log; \
                      echo x > /tmp/written && cat /tmp/written; ls -A /tmp; cat /var/user/index.py";
        let (ended, output) = node.run(&*backend, script).await;
        assert_eq!((ended.code, &*output), (Some(0), "x\nwritten\nx = 1\n"), "{}", backend.name());
        backend.close().await;
    }
}

#[tokio::test]
async fn nothing_of_the_host_is_in_reach() {
    let node = BenchNode::new();
    let secret = node.dir.path().join("secret");
    fs::write(&secret, "s3cret").unwrap();
    let script = format!(
        "cat {} /etc/shadow /root/.ssh/* 2>/dev/null; ls /var/run/docker.sock /run/docker.sock \
         /dev/sda /dev/vda /dev/mem 2>/dev/null; cat /proc/1/environ 2>/dev/null | tr '\\0' '\\n' | \
         grep -v -E '^(PATH|HOSTNAME|HOME)='; ls -d /proc/[0-9]* | wc -l; \
         kill -9 1; mount -t tmpfs x /tmp 2>/dev/null && echo mounted; echo done",
        secret.display()
    );
    for backend in backends(&node).await {
        let (ended, output) = node.run(&*backend, &script).await;
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(ended.code, Some(0), "{}: {output}", backend.name());
        assert_eq!(lines.len(), 2, "{}: {output}", backend.name());
        assert!(lines[0].trim().parse::<u32>().unwrap() < 8, "{output}");
        assert_eq!(lines[1], "done");
        backend.close().await;
    }
}

#[tokio::test]
async fn without_a_network_there_is_a_loopback_and_nothing_else() {
    let node = BenchNode::new();
    // Bash, since not every image has ip or curl.
    let script = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '; \
                  grep -c '^' /proc/net/route; \
                  (echo > /dev/tcp/127.0.0.1/9) 2>&1 | grep -o 'Connection refused' | head -1";
    for backend in backends(&node).await {
        for family in [RuntimeFamily::PYTHON, RuntimeFamily::SHELL] {
            let mut running = node.start(&*backend, node.spec(family, NetworkAccess::None)).await;
            let (_, output) = running.run(script);
            running.sandbox.stop().await;
            assert_eq!(output, "lo\n1\nConnection refused\n", "{}", backend.name());
        }
        backend.close().await;
    }
}

#[tokio::test]
async fn memory_beyond_the_limit_ends_the_process_and_is_counted() {
    let node = BenchNode::new();
    let script = "exec /usr/bin/python3 -c 'x = bytearray(600 << 20); print(len(x))'";
    for backend in backends(&node).await {
        let mut running =
            node.start(&*backend, node.spec(RuntimeFamily::PYTHON, NetworkAccess::None)).await;
        let (ended, output) = running.run(script);
        if holds(&*backend, "memory limit") {
            assert_eq!(ended.signal, Some(9), "{}: {output}", backend.name());
            assert_eq!(ended.oom_killed, Some(true), "{}", backend.name());
        } else {
            assert!(output.contains("MemoryError"), "{}: {output}", backend.name());
        }
        running.sandbox.stop().await;
        backend.close().await;
    }
}

#[tokio::test]
async fn tmp_holds_512_mb_beside_memory() {
    let node = BenchNode::new();
    let script = "head -c 536870912 /dev/zero > /tmp/all && echo wrote; ls -l /tmp/all | \
                  cut -d' ' -f5; (head -c 64m /dev/zero > /tmp/more) 2>/dev/null || echo full; \
                  echo ready; read -t 60 < <(sleep 60)";
    for backend in backends(&node).await {
        if !holds(&*backend, "512 MB of /tmp beside memory") {
            let script = "(head -c 128m /dev/zero > /tmp/more) 2>/dev/null || echo full";
            assert_eq!(node.run(&*backend, script).await.1, "full\n", "{}", backend.name());
            backend.close().await;
            continue;
        }
        let mut running =
            node.start(&*backend, node.spec(RuntimeFamily::PYTHON, NetworkAccess::None)).await;
        running.begin(script);
        running.wait_for_output("wrote\n536870912\nfull\nready").await;
        let memory = running.sandbox.memory_bytes().unwrap();
        assert!(memory < 32 << 20, "{}: {memory} bytes", backend.name());
        running.sandbox.stop().await;
        backend.close().await;
    }
}

#[tokio::test]
async fn a_fork_bomb_meets_its_limit() {
    let node = BenchNode::new();
    let script = "exec /usr/bin/python3 -c 'import os, time\nn = 0\ntry:\n  while n < 200:\n    \
                  if os.fork() == 0: time.sleep(20); os._exit(0)\n    n += 1\n\
                  except OSError: pass\nprint(n)'";
    for backend in backends(&node).await {
        let (_, output) = node.run(&*backend, script).await;
        let started: u32 = output.trim().parse().unwrap();
        assert!((32..64).contains(&started), "{}: {started} processes", backend.name());
        backend.close().await;
    }
}

#[tokio::test]
async fn a_frozen_sandbox_stands_still_until_it_is_thawed() {
    let node = BenchNode::new();
    let script = "while :; do echo tick; sleep 0.01; done";
    for backend in backends(&node).await {
        let mut running =
            node.start(&*backend, node.spec(RuntimeFamily::SHELL, NetworkAccess::None)).await;
        running.begin(script);
        running.wait_for_output("tick").await;
        if !holds(&*backend, "freezing when idle") {
            assert!(!running.sandbox.freeze());
            if backend.name() == "docker" {
                assert!(running.sandbox.pause().await && running.sandbox.unpause().await);
                running.wait_for_output("tick").await;
            }
            running.sandbox.stop().await;
            backend.close().await;
            continue;
        }
        // The kernel is told and not waited for: of several times one is short on a busy machine, too.
        let quick = (0..20).any(|_| {
            let since = Instant::now();
            assert!(running.sandbox.freeze(), "{}", backend.name());
            let took = since.elapsed();
            assert!(running.sandbox.thaw());
            took < Duration::from_millis(50)
        });
        assert!(quick, "{}", backend.name());
        assert!(running.sandbox.freeze(), "{}", backend.name());
        // What was under way when the kernel was told may still come; then nothing does.
        let since = Instant::now();
        loop {
            running.new_output();
            tokio::time::sleep(Duration::from_millis(100)).await;
            if running.new_output().is_empty() {
                break;
            }
            assert!(since.elapsed() < bench::WAIT_MAX, "{} goes on", backend.name());
        }
        assert!(running.sandbox.thaw());
        running.wait_for_output("tick").await;
        // And one that is frozen can be stopped.
        assert!(running.sandbox.freeze());
        running.sandbox.stop().await;
        backend.close().await;
    }
}

#[tokio::test]
async fn a_stopped_sandbox_leaves_nothing() {
    let node = BenchNode::new();
    let script = "(setsid sleep 1000 &) ; echo x > /tmp/x; sleep 1000";
    for backend in backends(&node).await {
        let mut running =
            node.start(&*backend, node.spec(RuntimeFamily::SHELL, NetworkAccess::None)).await;
        running.begin(script);
        let instance = running.spec.instance.to_string();
        running.sandbox.stop().await;
        assert_eq!(traces(&instance), Vec::<String>::new(), "{}", backend.name());
        backend.close().await;
        let left = node.dir.path().join(backend.name()).join("tmp");
        assert_eq!(mounts_below(&left.to_string_lossy()), 0, "{}", backend.name());
    }
}

/// Where the host still knows an instance: mounts, control groups, processes.
fn traces(instance: &str) -> Vec<String> {
    let mut found = Vec::new();
    let text = fs::read_to_string("/proc/self/mounts").unwrap();
    found.extend(text.lines().filter(|line| line.contains(instance)).map(str::to_owned));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        found.extend(groups.lines().filter(|line| line.contains(instance)).map(str::to_owned));
    }
    found
}

fn mounts_below(dir: &str) -> usize {
    let text = fs::read_to_string("/proc/self/mounts").unwrap();
    text.lines().filter(|line| line.split(' ').nth(1).is_some_and(|at| at.starts_with(dir))).count()
}

#[tokio::test]
async fn what_a_killed_server_left_is_swept_by_the_next() {
    let node = BenchNode::new();
    for backend in backends(&node).await {
        assert_eq!(backend.sweep().await.unwrap(), 0, "{}", backend.name());
        let mut left =
            node.start(&*backend, node.spec(RuntimeFamily::SHELL, NetworkAccess::None)).await;
        left.begin("sleep 1000");
        let instance = left.spec.instance.to_string();
        // Nobody stops it: its control connection stays open as long as `left` does.
        let next: Arc<dyn SandboxBackend> = match backend.name() {
            "docker" => Arc::new(docker(&node).await.unwrap()),
            _ => Arc::new(process(&node).await),
        };
        if is_root() {
            assert_eq!(next.sweep().await.unwrap(), 1, "{}", backend.name());
            assert_eq!(traces(&instance), Vec::<String>::new(), "{}", backend.name());
        } else {
            // Without control groups, the end of the connection ends it.
            next.sweep().await.unwrap();
        }
        left.sandbox.stop().await;
        next.close().await;
        backend.close().await;
    }
}
