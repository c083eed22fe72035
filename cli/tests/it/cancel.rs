//! Cancelling what runs: `hanshu cancel` on every backend and queue, across nodes, and at kill -9.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::world::{Answer, BACKENDS, PATIENCE, PYTHON, Ran, World, send};

/// Says when it runs and who it is, and does on SIGTERM as its event says.
const CODE: &str = r#"
import signal, sys, time

def main_handler(event, context):
    def on_term(*_):
        print("got SIGTERM", flush=True)
        if event.get("then") == "end":
            sys.exit(3)
        if event.get("then") == "return":
            raise StopIteration
    signal.signal(signal.SIGTERM, on_term)
    print("running " + context["request_id"], flush=True)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.05)
    except StopIteration:
        return "finished"
    return "late"
"#;

const SETTINGS: &str = "timeout_s = 90\nasync = { max_attempts = 3, retry_delay_s = 0 }\n";

fn deploy(world: &World) {
    world.deploy("waits", &format!("{PYTHON}{SETTINGS}"), &[("index.py", CODE)]);
}

/// The id of the nth run, once it runs. Others go on meanwhile.
async fn running(world: &World, nth: usize) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let log = world.ok(&["logs", "waits", "--since", "1h"]);
        let mut ids = log.lines().filter_map(|line| line.split("running ").nth(1));
        if let Some(id) = ids.nth(nth - 1) {
            return id.trim().to_owned();
        }
        assert!(Instant::now() < until, "run {nth} never begins:\n{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn state(world: &World, id: &str) -> Ran {
    world.hanshu(&["status", id])
}

#[track_caller]
fn assert_cancelled(world: &World, id: &str) -> Value {
    let ended = state(world, id);
    assert_eq!(ended.code, 1, "{ended:?}");
    let view: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(view["state"], "cancelled", "{view}");
    view
}

async fn cancel_over_http(world: &World, id: &str) -> Answer {
    send(world.api(Method::POST, &format!("/v1/invocations/{id}/cancel"))).await
}

#[tokio::test]
async fn a_running_event_gets_sigterm_then_its_sandbox_is_stopped() {
    for backend in BACKENDS {
        let grace = [("HANSHU_POOL__CANCEL_GRACE_MS", "5000")];
        let world = World::start_with(&["--sandbox", backend], &grace);
        deploy(&world);
        let ends = world.accept("waits", r#"{"then": "end"}"#).await;
        assert_eq!(running(&world, 1).await, ends);
        let begun = Instant::now();
        assert_eq!(world.ok(&["cancel", &ends]).trim(), format!("cancelled {ends}"), "{backend}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        world.log_of("waits", |log| log.contains("got SIGTERM"));
        let view = assert_cancelled(&world, &ends);
        assert_eq!(view["attempts"].as_array().unwrap().len(), 1, "{backend}: {view}");
        assert_eq!(view["attempts"][0]["statusCode"], 499, "{backend}: {view}");
        let again = world.hanshu(&["cancel", &ends]);
        assert_eq!(again.code, 3, "{backend}: {again:?}");
        assert!(again.stderr.contains("is cancelled"), "{backend}: {again:?}");

        let ignores = world.accept("waits", r#"{"then": "nothing"}"#).await;
        assert_eq!(running(&world, 2).await, ignores);
        let begun = Instant::now();
        world.ok(&["cancel", &ignores]);
        let took = begun.elapsed();
        assert!((5_000..25_000).contains(&took.as_millis()), "{backend}: {took:?}");
        assert_cancelled(&world, &ignores);

        let returns = world.accept("waits", r#"{"then": "return"}"#).await;
        assert_eq!(running(&world, 3).await, returns);
        let faster = world.hanshu(&["cancel", &returns]);
        assert_eq!(faster.code, 1, "{backend}: {faster:?}");
        assert_eq!(faster.stdout.trim(), format!("succeeded {returns}"), "{backend}");
        assert_eq!(world.end_of(&returns).await["result"], "finished", "{backend}");
    }
}

#[tokio::test]
async fn a_synchronous_call_is_cancelled_and_its_caller_gets_the_failure() {
    let world = World::start("process");
    deploy(&world);
    let cancel = async {
        let id = running(&world, 1).await;
        let answer = cancel_over_http(&world, &id).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["requestId"]),
            (202, &id.as_str().into())
        );
        id
    };
    let (answer, id) = tokio::join!(world.invoke("waits", r#"{"then": "end"}"#), cancel);
    assert_eq!((answer.status.as_u16(), &answer.request_id), (409, &id));
    let failure = answer.json();
    assert_eq!((&failure["statusCode"], &failure["errorCode"]), (&499.into(), &(-1).into()));
    assert_eq!(failure["errorMessage"], "the invocation was cancelled");
    let until = Instant::now() + PATIENCE;
    while state(&world, &id).code == 3 {
        assert!(Instant::now() < until, "its record is never written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_cancelled(&world, &id);
    assert_eq!(cancel_over_http(&world, &id).await.status.as_u16(), 409);
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(cancel_over_http(&world, unknown).await.status.as_u16(), 404);
}

/// The function ends at kill -9 with its server; the request must not be lost, nor the event run again.
#[tokio::test]
async fn a_cancellation_survives_kill_9() {
    let mut world =
        World::start_with(&["--sandbox", "process"], &[("HANSHU_POOL__CANCEL_GRACE_MS", "60000")]);
    deploy(&world);
    let id = world.accept("waits", r#"{"then": "nothing"}"#).await;
    assert_eq!(running(&world, 1).await, id);
    let asked = world.hanshu(&["cancel", &id, "--wait", "0"]);
    assert_eq!(asked.code, 5, "{asked:?}");
    assert!(asked.stderr.contains("has not ended yet"), "{asked:?}");
    assert_eq!(state(&world, &id).code, 5);
    world.kill();
    world.start_server();
    let until = Instant::now() + PATIENCE;
    while state(&world, &id).code == 5 {
        assert!(Instant::now() < until, "it never ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_cancelled(&world, &id);
    let log = world.ok(&["logs", "waits", "--since", "1h"]);
    assert!(log.matches("running ").count() <= 1, "it ran again:\n{log}");
}

/// The gateway, the triggers and the invokers are processes of their own, the queue is Redis.
#[tokio::test]
async fn what_runs_on_another_node_is_cancelled() {
    let Some(cluster) = Cluster::start("process") else { return };
    cluster.ready().await;
    let world = &cluster.gateway;
    deploy(world);
    let id = world.accept("waits", r#"{"then": "end"}"#).await;
    assert_eq!(running(world, 1).await, id);
    let begun = Instant::now();
    world.ok(&["cancel", &id]);
    // Before its dispatcher renews its hold.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_cancelled(world, &id);
    let cancel = async {
        let id = running(world, 2).await;
        cancel_over_http(world, &id).await.status.as_u16()
    };
    let (answer, cancelled) = tokio::join!(world.invoke("waits", r#"{"then": "end"}"#), cancel);
    assert_eq!((answer.status.as_u16(), cancelled), (409, 202), "{answer:?}");
}
