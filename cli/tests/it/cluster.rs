//! The four roles as processes of their own, on one PostgreSQL and one Redis.

use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;

use crate::services::Redis;
use crate::world::{PATIENCE, PYTHON, World, send, service};

/// A new, empty database on that server; its URL.
fn fresh_database(server: &str) -> String {
    let name = format!("hanshu_{}_{}", std::process::id(), fastname());
    let made =
        Command::new("psql").args([server, "-qc", &format!("CREATE DATABASE {name}")]).status();
    assert!(made.unwrap().success(), "psql {server}");
    let (base, _) = server.rsplit_once('/').unwrap();
    format!("{base}/{name}")
}

fn fastname() -> u128 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap();
    now.as_nanos()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A gateway, and the other roles behind it: two processes with timers, two with sandboxes.
pub(crate) struct Cluster {
    pub(crate) gateway: World,
    _controller: World,
    _triggers: [World; 2],
    invokers: Vec<World>,
    /// Of its own: clusters of other stories, and of other runs, must not claim its events.
    _redis: Redis,
}

impl Cluster {
    pub(crate) fn start(backend: &str) -> Option<Self> {
        let database = fresh_database(&service("TEST_POSTGRES_URL")?);
        let own_redis = Redis::start();
        let redis = own_redis.url();
        let master = "cd".repeat(32);
        let controller_port = free_port();
        let controller_url = format!("http://127.0.0.1:{controller_port}");
        let role = |role: &str, port: u16| {
            let (listen, advertise) =
                (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
            World::start_with(
                &[
                    "--sandbox",
                    backend,
                    "--roles",
                    role,
                    "--database",
                    &database,
                    "--queue",
                    &redis,
                ],
                &[
                    ("HANSHU_CLUSTER__MASTER_KEY", &master),
                    ("HANSHU_CLUSTER__TOKEN", "a-token-that-is-shared-by-all-of-the-cluster"),
                    ("HANSHU_CLUSTER__CONTROLLER", &controller_url),
                    ("HANSHU_CLUSTER__LISTEN", &listen),
                    ("HANSHU_CLUSTER__ADVERTISE", &advertise),
                ],
            )
        };
        let controller = role("controller", controller_port);
        let invokers = vec![role("invoker", free_port()), role("invoker", free_port())];
        let triggers = [role("triggers", free_port()), role("triggers", free_port())];
        let gateway = role("gateway", free_port());
        let until = Instant::now() + PATIENCE;
        let ready = || gateway.hanshu(&["list"]).code == 0;
        while !ready() {
            assert!(Instant::now() < until, "{}", gateway.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(Self {
            gateway,
            _controller: controller,
            _triggers: triggers,
            invokers,
            _redis: own_redis,
        })
    }

    pub(crate) async fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = send(self.gateway.api(Method::GET, "/readyz")).await;
            if answer.status.is_success() {
                return;
            }
            assert!(Instant::now() < until, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn roles_in_processes_of_their_own_answer_like_one() {
    let Some(mut cluster) = Cluster::start("process") else { return };
    cluster.ready().await;
    let code = "import time\ndef main_handler(event, context):\n    print('here')\n    time.sleep(event.get('s', 0))\n    return event\n";
    let world = &cluster.gateway;
    world.deploy("echo", PYTHON, &[("index.py", code)]);
    let answer = world.invoke("echo", "{\"a\":1}").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, serde_json::json!({"a": 1})),
        "{answer:?}"
    );
    world.log_of("echo", |log| log.contains("here") && log.contains("Report RequestId"));

    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(world.accept("echo", "{\"s\":0.2}").await);
    }
    // One of the two invokers dies in the middle of it.
    let mut dead = cluster.invokers.pop().unwrap();
    dead.kill();
    for id in &ids {
        assert_eq!(cluster.gateway.end_of(id).await["state"], "succeeded");
    }
    for _ in 0..5 {
        let answer = cluster.gateway.invoke("echo", "{}").await;
        assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    }
    // It comes back, and takes what it left behind with it when it stops.
    dead.start_server();
    assert_eq!(dead.stop(), 0);
}
