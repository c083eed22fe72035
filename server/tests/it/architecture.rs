//! The crate graph is what ARCHITECTURE.md says: which crate may import which, and which crate alone uses
//! an outside technology.

use std::process::Command;

use serde_json::Value;

/// Which of our crates each of our crates may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("hanshu-core", &[]),
    ("hanshu-api", &["hanshu-core"]),
    ("hanshu-store", &["hanshu-core"]),
    ("hanshu-controller", &["hanshu-core"]),
    ("hanshu-runtimes", &[]),
    ("hanshu-invoker", &["hanshu-core", "hanshu-runtimes"]),
    ("hanshu-triggers", &["hanshu-core"]),
    ("hanshu-cluster", &["hanshu-core"]),
    ("hanshu-gateway", &["hanshu-core", "hanshu-api", "hanshu-controller", "hanshu-triggers"]),
    (
        "hanshu-server",
        &[
            "hanshu-core",
            "hanshu-api",
            "hanshu-store",
            "hanshu-controller",
            "hanshu-invoker",
            "hanshu-runtimes",
            "hanshu-triggers",
            "hanshu-cluster",
            "hanshu-gateway",
        ],
    ),
    ("hanshu-cli", &["hanshu-core", "hanshu-api", "hanshu-server", "hanshu-runtimes"]),
    ("hanshu-bench", &[]),
    (
        "hanshu-instructions",
        &[
            "hanshu-core",
            "hanshu-controller",
            "hanshu-invoker",
            "hanshu-runtimes",
            "hanshu-triggers",
        ],
    ),
    ("hanshu-soak", &[]),
    ("xtask", &[]),
];

/// Measures technologies bare, so it knows many and none of ours.
const BENCH: &str = "hanshu-bench";

/// Outside technologies, and the crates that may know them. `redis` is known to the triggers too,
/// for users' streams; `zip` to the command line too, which packs. HTTP is served by the gateway and
/// between processes, and asked for by the API's client and between processes.
const KNOWN_BY: &[(&str, &[&str])] = &[
    ("axum", &["hanshu-gateway", "hanshu-cluster"]),
    ("hyper", &["hanshu-gateway", "hanshu-invoker"]),
    ("tower", &["hanshu-gateway", "hanshu-cluster"]),
    ("reqwest", &["hanshu-api", "hanshu-cluster"]),
    ("utoipa", &["hanshu-api"]),
    ("sqlx", &["hanshu-store"]),
    ("redis", &["hanshu-store", "hanshu-triggers"]),
    ("zip", &["hanshu-store", "hanshu-cli"]),
    ("bollard", &["hanshu-invoker"]),
    ("cron", &["hanshu-triggers"]),
    ("figment", &["hanshu-server"]),
    ("tracing-subscriber", &["hanshu-server"]),
    ("clap", &["hanshu-cli", "hanshu-soak"]),
];

/// Package, dependency: for everything but tests.
fn edges() -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--no-deps", "--format-version", "1"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"].is_null() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                edges.push((text(&package["name"]), text(&dependency["name"])));
            }
        }
    }
    edges
}

#[test]
fn crates_import_only_what_they_may() {
    let edges = edges();
    assert!(30 < edges.len(), "cargo metadata shows too little: {edges:?}");
    let mut wrong = Vec::new();
    for (package, dependency) in edges {
        let ours = MAY_IMPORT.iter().any(|(name, _)| *name == dependency);
        let row = MAY_IMPORT.iter().find(|(name, _)| *name == package);
        let Some((_, may)) = row else {
            wrong.push(format!("{package} is not in the table"));
            continue;
        };
        if ours && !may.contains(&dependency.as_str()) {
            wrong.push(format!("{package} must not import {dependency}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_outside_technology_is_known_to_its_crate_alone() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (package, dependency) in edges().into_iter().filter(|(package, _)| package != BENCH) {
        if let Some((_, may)) = KNOWN_BY.iter().find(|(name, _)| *name == dependency) {
            seen += 1;
            if !may.contains(&package.as_str()) {
                wrong.push(format!(
                    "only {} may know {dependency}, not {package}",
                    may.join(" and ")
                ));
            }
        }
    }
    assert!(KNOWN_BY.len() <= seen, "only {seen} of the table's technologies are used at all");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
