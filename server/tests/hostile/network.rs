//! What is on the network: the cloud's credentials, the host's services, the neighbours' ports.
//!
//! Every address that must not be reached is one at which something listens, and that is reached
//! from somewhere else: a wall, not silence.

use std::fs::File;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::arena::{fault, id, run};
use crate::{Arena, Column};

const REACH: &str = include_str!("functions/reach.py");
/// Where clouds serve their machines' credentials.
const METADATA: &str = "169.254.169.254";
const DEVICE: &str = "lo";

/// That address, on this machine, with somebody who listens.
struct MetadataService {
    address: String,
    _turn: File,
}

impl MetadataService {
    /// We are root. One run at a time on this machine, until dropped.
    fn serve() -> Self {
        let turn = File::create(std::env::temp_dir().join("hanshu-hostile-metadata")).unwrap();
        turn.lock().unwrap();
        // What a killed run left.
        let _ = ip("del");
        assert!(ip("add"), "the address cannot be had");
        Self { address: listen(METADATA), _turn: turn }
    }
}

impl Drop for MetadataService {
    fn drop(&mut self) {
        ip("del");
    }
}

fn ip(verb: &str) -> bool {
    let mut command = std::process::Command::new("ip");
    let address = format!("{METADATA}/32");
    command.args(["addr", verb, &address, "dev", DEVICE]).stderr(std::process::Stdio::null());
    command.status().unwrap().success()
}

/// Listens on a free port; its address.
fn listen(on: &str) -> String {
    let socket = TcpListener::bind((on, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || while socket.accept().is_ok() {});
    format!("{on}:{port}")
}

/// What listens on this machine, at every address but loopback: bridges come and go with others'
/// networks, so only those of this node's count, where they do.
fn services(column: Column, bridge: &str) -> Vec<String> {
    let port = listen("0.0.0.0").rsplit(':').next().unwrap().to_owned();
    let text = run("ip", &["-o", "-4", "addr"]);
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let stays = |device: &str| {
        let of_ours = column == Column::Docker && bridge.contains(device);
        device != DEVICE && (of_ours || !device.contains('-') && device != "docker0")
    };
    let found =
        lines.filter(|words| stays(words[1])).filter_map(|words| words[3].split('/').next());
    let found: Vec<_> = found.map(|each| format!("{each}:{port}")).collect();
    assert!(!found.is_empty(), "{text}");
    found
}

/// The bridge of this server's node, as the engine tells it; empty without one.
fn bridge(arena: &Arena) -> String {
    if arena.column != Column::Docker {
        return String::new();
    }
    let label = format!("label=hanshu={}", arena.node());
    let id = run("docker", &["network", "ls", "-q", "--filter", &label]);
    let format = "{{json .Options}}";
    run("docker", &["network", "inspect", "--format", format, id.trim()])
}

/// What a container that is not ours reaches, on the engine's own bridge.
fn reached_by_others(to: &str) -> bool {
    let image = run("docker", &["images", "-q", "hanshu/python"]);
    let code = format!("{REACH}\nprint(reached(['{to}']))");
    let image = image.lines().next().unwrap();
    let args = ["run", "--rm", "--entrypoint", "/usr/bin/python3", image, "-c", &code];
    run("docker", &args).contains(to)
}

/// Two functions, one with a network and one without.
fn deploy(arena: &mut Arena) {
    arena.python("reach", "network = true\ntimeout_s = 20", REACH);
    arena.python("alone", "network = false\ntimeout_s = 20", REACH);
}

async fn ask(arena: &Arena, function: &str, event: Value) -> Value {
    let answer = arena.invoke(function, event.to_string()).await;
    assert_eq!(fault(&answer), (200, 0), "{:?}: {answer:?}", arena.column);
    answer.json()
}

/// What the two reach of these.
async fn reached(arena: &Arena, to: &[String]) -> (Value, Value) {
    let event = json!({"do": "reach", "to": to});
    (ask(arena, "reach", event.clone()).await, ask(arena, "alone", event).await)
}

/// Processes with a network have the host's: SECURITY.md says so. It shows that something is there.
fn expected(column: Column, to: &[String]) -> (Value, Value) {
    let mut all = to.to_vec();
    all.sort_unstable();
    match column {
        Column::Docker => (json!([]), json!([])),
        Column::Root | Column::User => (json!(all), json!([])),
    }
}

#[tokio::test]
async fn credentials_of_the_cloud_are_out_of_a_container_s_reach() {
    let columns = Column::all();
    if id() != 0 {
        eprintln!("not root: nobody can listen at {METADATA}, so it was NOT tried");
        return;
    }
    let metadata = MetadataService::serve();
    for column in columns {
        let mut arena = Arena::start(column).await;
        deploy(&mut arena);
        let to = [metadata.address.clone()];
        let found = arena.attack("cloud metadata", reached(&arena, &to)).await;
        assert_eq!(found, expected(column, &to), "{column:?}");
        if column == Column::Docker {
            assert!(reached_by_others(&to[0]), "another container reaches what ours does not");
        }
        arena.end().await;
    }
}

#[tokio::test]
async fn services_of_the_host_are_out_of_a_container_s_reach() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        deploy(&mut arena);
        // From here on the bridge is there, whose address is the host's, too.
        ask(&arena, "reach", json!({"do": "reach", "to": []})).await;
        let to = services(column, &bridge(&arena));
        assert!(
            column != Column::Docker || 2 <= to.len(),
            "the bridge has an address, too: {to:?}"
        );
        let found = arena.attack("services of the host", reached(&arena, &to)).await;
        assert_eq!(found, expected(column, &to), "{column:?}");
        arena.end().await;
    }
}

#[tokio::test]
async fn a_neighbour_s_port_is_out_of_a_container_s_reach() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        deploy(&mut arena);
        arena.python("listens", "network = true", REACH);
        let to = ask(&arena, "listens", json!({"do": "listen"})).await;
        let to = [to.as_str().unwrap().to_owned()];
        let event = json!({"do": "reach", "to": to});
        let itself = ask(&arena, "listens", event).await;
        assert_eq!(itself, json!(to), "{column:?}: who listens there can be reached");
        let found = arena.attack("a neighbour's port", reached(&arena, &to)).await;
        assert_eq!(found, expected(column, &to), "{column:?}");
        arena.end().await;
    }
}

#[tokio::test]
async fn raw_sockets_are_refused() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        deploy(&mut arena);
        let attack = async {
            for function in ["reach", "alone"] {
                let made = ask(&arena, function, json!({"do": "raw"})).await;
                assert_eq!(made, json!([]), "{column:?}, {function}");
            }
        };
        arena.attack("raw sockets", attack).await;
        arena.end().await;
    }
}

/// The engine's filter of system calls refuses it; processes have no filter, as SECURITY.md says.
#[tokio::test]
async fn a_user_namespace_of_its_own_is_refused_in_a_container() {
    for column in Column::all() {
        let mut arena = Arena::start(column).await;
        deploy(&mut arena);
        let attack = ask(&arena, "reach", json!({"do": "user-namespace"}));
        let made = arena.attack("user namespace", attack).await;
        assert_eq!(made, json!(column != Column::Docker), "{column:?}");
        arena.end().await;
    }
}
