//! What a killed server left behind is removed; what stops in order leaves nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::bad_luck::sandboxes::until_busy;
use crate::world::{BACKENDS, PATIENCE, PYTHON, World};

const CODE: &str = "import os\ndef main_handler(event, context):\n    return os.getpid()\n";

fn containers(node: &str) -> Vec<String> {
    let filter = format!("label=hanshu={node}");
    let output = Command::new("docker").args(["ps", "-aq", "--filter", &filter]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(Into::into).collect()
}

/// What there is of this server outside its process: containers, mounts, folders of sandboxes.
pub(crate) fn leftovers(world: &World) -> Vec<String> {
    let data = world.data.path().canonicalize().unwrap();
    let node = std::fs::read_to_string(data.join("node")).unwrap();
    let mut left = containers(node.trim());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let ours = mounts.lines().filter(|line| line.contains(data.to_str().unwrap()));
    left.extend(ours.map(|line| format!("mount {line}")));
    if let Ok(run) = std::fs::read_dir(data.join("run")) {
        left.extend(run.map(|entry| format!("folder {:?}", entry.unwrap().path())));
    }
    left
}

#[tokio::test]
async fn a_stop_in_order_leaves_nothing() {
    for backend in BACKENDS {
        let mut world = World::start(backend);
        world.deploy("hello", PYTHON, &[("index.py", CODE)]);
        assert_eq!(world.invoke("hello", "{}").await.status.as_u16(), 200);
        assert!(!leftovers(&world).is_empty(), "{backend}: a warm sandbox can be seen");
        assert_eq!(world.stop(), 0);
        assert_eq!(leftovers(&world), Vec::<String>::new(), "{backend}");
    }
}

#[tokio::test]
async fn what_a_killed_server_left_is_removed_at_the_next_start() {
    for backend in BACKENDS {
        let mut world = World::start(backend);
        world.deploy("hello", PYTHON, &[("index.py", CODE)]);
        assert_eq!(world.invoke("hello", "{}").await.status.as_u16(), 200);
        // A new server prepares file systems of its own at the same paths.
        let mut before = leftovers(&world);
        before.retain(|each| !each.starts_with("mount"));
        world.kill();
        world.start_server();
        let until = Instant::now() + PATIENCE;
        while leftovers(&world).iter().any(|each| before.contains(each)) {
            assert!(Instant::now() < until, "{backend}: {before:?} became {:?}", leftovers(&world));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(world.invoke("hello", "{}").await.status.as_u16(), 200);
        assert_eq!(world.stop(), 0);
        assert_eq!(leftovers(&world), Vec::<String>::new(), "{backend}");
    }
}

#[tokio::test]
async fn running_events_get_their_grace() {
    let mut world = World::start("process");
    let code =
        "import time\ndef main_handler(event, context):\n    time.sleep(1.5)\n    return 'done'\n";
    world.deploy("slow", PYTHON, &[("index.py", code)]);
    let pid = world.pid();
    let stop = async {
        until_busy(&world).await;
        crate::world::signal(pid, "TERM");
    };
    let (answer, ()) = tokio::join!(world.invoke("slow", "{}"), stop);
    assert_eq!(answer.json(), "done");
    assert_eq!(world.stop_wait(), 0);
}
