//! A Docker engine that goes away and comes back.

use std::time::{Duration, Instant};

use crate::services::EngineRoad;
use crate::world::{NO_PREWARM_CELLS, PYTHON, World};

const CODE: &str = "import os\ndef main_handler(event, context):\n    return os.getpid()\n";
/// The longest that a call may take that needs an unavailable engine.
const DEADLINE: Duration = Duration::from_secs(10);

/// Cold calls are refused at once until somebody has looked and found the engine.
async fn is_found_again(world: &World) {
    let begun = Instant::now();
    loop {
        let answer = world.invoke("cold", "{}").await;
        match answer.status.as_u16() {
            200 => return,
            503 if begun.elapsed() < DEADLINE => {}
            _ => panic!("after {:?}: {answer:?}", begun.elapsed()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_engine_that_goes_away_is_survived() {
    let mut road = EngineRoad::new();
    let url = road.url();
    let world = World::start_with(
        &["--sandbox", "docker"],
        &[("HANSHU_DOCKER_HOST", &url), NO_PREWARM_CELLS],
    );
    world.deploy("warm", PYTHON, &[("index.py", CODE)]);
    world.deploy("cold", PYTHON, &[("index.py", CODE)]);
    assert_eq!(world.invoke("warm", "{}").await.status.as_u16(), 200);

    road.cut();
    for _ in 0..5 {
        let answer = world.invoke("warm", "{}").await;
        assert_eq!(answer.status.as_u16(), 200, "warm calls need no engine: {answer:?}");
    }
    for _ in 0..2 {
        let begun = Instant::now();
        let answer = world.invoke("cold", "{}").await;
        assert_eq!(answer.status.as_u16(), 503, "{answer:?}");
        assert_eq!(answer.fault, "platform");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("Docker engine"), "{detail}");
        assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    }
    let id = world.accept("cold", "{}").await;

    road.mend();
    is_found_again(&world).await;
    assert_eq!(world.end_of(&id).await["state"], "succeeded");
    assert_eq!(world.invoke("warm", "{}").await.status.as_u16(), 200);
}

#[tokio::test]
async fn an_engine_that_stands_still_keeps_nobody_waiting_for_ever() {
    let road = EngineRoad::new();
    let url = road.url();
    let world = World::start_with(
        &["--sandbox", "docker"],
        &[("HANSHU_DOCKER_HOST", &url), NO_PREWARM_CELLS],
    );
    world.deploy("warm", PYTHON, &[("index.py", CODE)]);
    world.deploy("cold", PYTHON, &[("index.py", CODE)]);
    assert_eq!(world.invoke("warm", "{}").await.status.as_u16(), 200);
    road.block(true);
    let begun = Instant::now();
    let (cold, warm) = tokio::join!(world.invoke("cold", "{}"), world.invoke("warm", "{}"));
    assert_eq!(warm.status.as_u16(), 200, "warm calls need no engine: {warm:?}");
    assert_eq!(cold.status.as_u16(), 503, "{cold:?}");
    assert_eq!(cold.fault, "platform");
    // One request of a start has 20 s, and 3 s more show that the engine is unavailable.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let detail = cold.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("does not answer"), "{detail}");
    road.block(false);
    is_found_again(&world).await;
}
