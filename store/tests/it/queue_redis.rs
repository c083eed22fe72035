//! What only Redis can do to us: go away, come back, hang, or be set up so that it forgets. Each
//! test has a server of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hanshu_core::ports::{EventQueue as _, QueueError};
use hanshu_core::{Clock as _, ErrorKind, SystemClock};
use hanshu_store::{RedisOptions, RedisQueue};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::queue_kinds::{HOLD, event, name, node};

const Q: &str = "default/hello";
const DEADLINE: Duration = Duration::from_millis(500);

/// A `redis-server` that ends with the test.
struct TestRedis {
    process: Child,
    folder: TempDir,
    port: u16,
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl TestRedis {
    /// `None` where there is no `redis-server` to start.
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let Ok(process) = spawn(&folder, port) else {
            assert!(std::env::var("CI").is_err(), "CI tests Redis: install redis-server");
            eprintln!("there is no redis-server: its failures are not tested");
            return None;
        };
        Some(Self { process, folder, port })
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = spawn(&self.folder, self.port).unwrap();
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Runs a command there by hand.
    async fn ask(&self, command: &[&str]) {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut all = redis::cmd(command[0]);
        let () = all.arg(&command[1..]).query_async(&mut connection).await.unwrap();
    }

    async fn try_connect(&self, user: &str) -> Result<RedisQueue, QueueError> {
        let options = RedisOptions { deadline: DEADLINE, ..RedisOptions::default() };
        let url = format!("redis://{user}127.0.0.1:{}", self.port);
        RedisQueue::connect(&url, Arc::new(SystemClock), &TaskTracker::new(), &options).await
    }

    /// Connects as soon as it is up.
    async fn connect(&self) -> RedisQueue {
        let connecting = async {
            loop {
                match self.try_connect("").await {
                    Ok(queue) => return queue,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), connecting).await.unwrap()
    }
}

fn spawn(folder: &TempDir, port: u16) -> std::io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "yes", "--dir", folder.path().to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
}

fn now() -> hanshu_core::Timestamp {
    SystemClock.now()
}

/// The call ends, in time, by saying that Redis is unavailable. Its time is measured by a timer that
/// runs beside it: on a busy machine both are late.
async fn is_unavailable<T: std::fmt::Debug>(call: impl Future<Output = Result<T, QueueError>>) {
    let error = tokio::select! {
        biased;
        ended = call => ended.unwrap_err(),
        () = periods(4) => panic!("it has not ended after four deadlines"),
    };
    assert!(matches!(error, QueueError::Unavailable(_)), "{error:?}");
}

/// That many deadlines, one after the other: what is due within one of them has its turn first.
async fn periods(count: u32) {
    for _ in 0..count {
        sleep(DEADLINE).await;
    }
}

#[tokio::test]
async fn while_redis_is_unavailable_calls_fail_and_afterwards_all_is_there() {
    let Some(mut server) = TestRedis::start().await else { return };
    let queue = Arc::new(server.connect().await);
    let kept = event(Q, now());
    queue.push(kept.clone()).await.unwrap();
    let held = event("default/held", now());
    queue.push(held.clone()).await.unwrap();
    let source = queue.source(&held.queue);
    let claim = source.claim(1, HOLD, &node()).await.unwrap().pop().unwrap();

    server.stop();
    for _ in 0..3 {
        is_unavailable(queue.push(event(Q, now()))).await;
        is_unavailable(source.claim(1, HOLD, &node())).await;
        is_unavailable(source.extend(&claim.receipt, HOLD)).await;
        is_unavailable(queue.ready(1)).await;
        is_unavailable(queue.state(kept.request_id)).await;
        is_unavailable(queue.stats()).await;
    }
    assert_eq!(queue.durability_warnings().await.len(), 1);
    is_unavailable(server.try_connect("")).await;

    server.start_again();
    let back = async {
        while queue.ready(1).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), back).await.expect("the connection is made anew");
    assert_eq!(queue.state(kept.request_id).await.unwrap().unwrap().request_id, kept.request_id);
    source.extend(&claim.receipt, HOLD).await.unwrap();
    source.retry(&claim.receipt, now(), None).await.unwrap();
    assert_eq!(queue.source(&name(Q)).claim(5, HOLD, &node()).await.unwrap().len(), 1);
    queue.push(event(Q, now())).await.unwrap();
}

#[tokio::test]
async fn a_redis_that_hangs_is_not_waited_for() {
    let Some(server) = TestRedis::start().await else { return };
    let queue = server.connect().await;
    server.signal("-STOP");
    is_unavailable(queue.push(event(Q, now()))).await;
    is_unavailable(queue.ready(1)).await;
    is_unavailable(server.try_connect("")).await;
    server.signal("-CONT");
    let back = async { while queue.push(event(Q, now())).await.is_err() {} };
    timeout(Duration::from_secs(10), back).await.expect("it goes on");
}

#[tokio::test]
async fn a_redis_that_forgets_is_doubted() {
    let Some(server) = TestRedis::start().await else { return };
    let queue = server.connect().await;
    assert!(queue.durability_warnings().await.is_empty());
    server.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    assert!(queue.durability_warnings().await.is_empty(), "without a limit nothing is evicted");
    server.ask(&["CONFIG", "SET", "maxmemory", "100mb"]).await;
    server.ask(&["CONFIG", "SET", "appendonly", "no"]).await;
    let durability_warnings = queue.durability_warnings().await;
    assert_eq!(durability_warnings.len(), 2, "{durability_warnings:?}");
    assert!(durability_warnings[0].contains("`appendonly yes`"), "{durability_warnings:?}");
    assert!(
        durability_warnings[1].contains("`maxmemory-policy noeviction`"),
        "{durability_warnings:?}"
    );
}

#[tokio::test]
async fn a_redis_that_may_not_be_asked_is_doubted() {
    let Some(server) = TestRedis::start().await else { return };
    server.connect().await;
    server.ask(&["ACL", "SETUSER", "us", "on", ">pw", "~*", "&*", "+@all", "-config"]).await;
    let queue = server.try_connect("us:pw@").await.unwrap();
    let durability_warnings = queue.durability_warnings().await;
    assert_eq!(durability_warnings.len(), 1, "{durability_warnings:?}");
    assert!(durability_warnings[0].contains("does not permit"), "{durability_warnings:?}");
    queue.push(event(Q, now())).await.unwrap();
    is_unavailable(server.try_connect("us:wrong@")).await;
}

#[tokio::test]
async fn a_redis_that_is_full_refuses_for_now() {
    let Some(server) = TestRedis::start().await else { return };
    let queue = server.connect().await;
    queue.push(event(Q, now())).await.unwrap();
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    is_unavailable(queue.push(event(Q, now()))).await;
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    queue.push(event(Q, now())).await.unwrap();
}

#[tokio::test]
async fn what_ended_expires_in_redis_even_if_nobody_collects() {
    let Some(server) = TestRedis::start().await else { return };
    server.connect().await;
    let keep = Duration::from_millis(50);
    let options = RedisOptions { keep, ..RedisOptions::default() };
    let url = format!("redis://127.0.0.1:{}", server.port);
    let queue = RedisQueue::connect(&url, Arc::new(SystemClock), &TaskTracker::new(), &options)
        .await
        .unwrap();
    let event = event(Q, now());
    queue.push(event.clone()).await.unwrap();
    let source = queue.source(&event.queue);
    let claim = source.claim(1, HOLD, &node()).await.unwrap().pop().unwrap();
    sleep(2 * keep).await;
    assert!(queue.state(event.request_id).await.unwrap().is_some(), "it has not ended");
    let ended = hanshu_core::ports::EventEnd::Expired(None);
    source.end(&claim.receipt, None, ended).await.unwrap();
    assert!(queue.state(event.request_id).await.unwrap().is_some());
    sleep(2 * keep).await;
    assert_eq!(queue.state(event.request_id).await.unwrap(), None);
    let all = queue.collect(now() + HOLD).await.unwrap();
    assert_eq!(all, 1, "its figures are collected all the same");
    assert_eq!(queue.stats().await.unwrap(), []);
}
