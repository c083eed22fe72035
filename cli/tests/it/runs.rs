//! The history on the command line: `hanshu runs`, `hanshu rerun`, `hanshu cancel`.

use serde_json::Value;

use crate::world::{PYTHON, World};

/// The ids that `hanshu runs` lists, newest end first, once there are `count` of them.
async fn listed(world: &World, args: &[&str], count: usize) -> Vec<String> {
    let args = [&["runs", "--output", "json"], args].concat();
    let mut ids = Vec::new();
    for _ in 0..200 {
        let list: Value = serde_json::from_str(&world.ok(&args)).unwrap();
        let runs = list["invocations"].as_array().unwrap();
        ids = runs.iter().map(|run| run["requestId"].as_str().unwrap().to_owned()).collect();
        if ids.len() == count {
            return ids;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{args:?}: {ids:?} instead of {count}");
}

#[tokio::test]
async fn ended_events_are_listed_and_run_again() {
    let world = World::start("process");
    let settings = format!("{PYTHON}async = {{ max_attempts = 1 }}\n");
    let code = "def main_handler(event, context):\n    return 10 / event['by']\n";
    world.deploy("divide", &settings, &[("index.py", code)]);
    let good = world.accept("divide", "{\"by\": 2}").await;
    world.end_of(&good).await;
    let bad = world.accept("divide", "{\"by\": 0}").await;
    world.end_of(&bad).await;

    assert_eq!(listed(&world, &["divide"], 2).await, [bad.clone(), good.clone()]);
    assert_eq!(listed(&world, &["--state", "failed"], 1).await, std::slice::from_ref(&bad));
    assert_eq!(listed(&world, &["--grep", "DIVISION"], 1).await, std::slice::from_ref(&bad));
    assert_eq!(listed(&world, &["--since", "1h", "--state", "succeeded"], 1).await, [good]);
    listed(&world, &["--until", "1h"], 0).await;
    let table = world.ok(&["runs", "divide", "--state", "failed"]);
    assert!(table.contains(&bad) && table.contains("division by zero"), "{table}");
    let refused = world.hanshu(&["runs", "--state", "running"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("succeeded, failed, expired, cancelled"), "{refused:?}");

    let again = world.ok(&["rerun", &bad]).trim().to_owned();
    let end = world.end_of(&again).await;
    assert_eq!((&end["state"], &end["rerunOf"]), (&"failed".into(), &bad.as_str().into()));
    let mended = world.ok(&["rerun", &bad, "--data", "{\"by\": 5}"]).trim().to_owned();
    assert_eq!(world.end_of(&mended).await["result"], 2.0);
    listed(&world, &["divide"], 4).await;
    let unknown = world.hanshu(&["rerun", "01890a5d-ac96-774b-bcce-b302099a8057"]);
    assert_eq!(unknown.code, 3, "{unknown:?}");
}

#[tokio::test]
async fn an_event_that_waits_is_cancelled() {
    let world = World::start("process");
    let settings = format!("{PYTHON}async = {{ max_attempts = 2, retry_delay_s = 3600 }}\n");
    let code = "def main_handler(event, context):\n    raise RuntimeError('no')\n";
    world.deploy("fails", &settings, &[("index.py", code)]);
    let id = world.accept("fails", "{}").await;
    for _ in 0..200 {
        let view: Value = serde_json::from_str(&world.hanshu(&["status", &id]).stdout).unwrap();
        if view["state"] == "retrying" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(world.ok(&["cancel", &id]).contains(&id));
    let ended = world.hanshu(&["status", &id]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stdout.contains("\"cancelled\""), "{ended:?}");
    assert_eq!(world.hanshu(&["cancel", &id]).code, 3);
    assert_eq!(listed(&world, &["--state", "cancelled"], 1).await, [id]);
}
