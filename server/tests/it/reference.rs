//! docs/operations.md names every setting and every metric of the program, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hanshu_server::Config;
use serde_json::Value;

/// What every metric's name begins with in the source.
const METRIC: &str = "\"hanshu_";
/// Endings of metrics' names: other texts begin alike.
const METRIC_ENDS: [&str; 5] = ["_total", "_seconds", "_running", "_waiting", "_sandboxes"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The cells of the table whose first column is called `head`.
fn table(head: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let begin = format!("| {head} |");
    let rows = text.lines().skip_while(|line| !line.starts_with(&begin)).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    assert!(5 < rows.len(), "docs/operations.md has no table `{head}`");
    rows
}

/// Every setting by its path, such as `pool.keep_alive_s`, with its default.
fn settings() -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut open = vec![(String::new(), serde_json::to_value(Config::default()).unwrap())];
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Object(fields) => open.extend(fields.into_iter().map(|(key, value)| {
                let path = if path.is_empty() { key } else { format!("{path}.{key}") };
                (path, value)
            })),
            leaf => drop(all.insert(path, leaf)),
        }
    }
    all
}

/// The default as the table shows it; `None` where words must say what nothing means.
fn format_default(default: &Value) -> Option<String> {
    match default {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(format!("`{text}`")),
        other => Some(format!("`{other}`")),
    }
}

/// Names of metrics in the sources of a folder.
fn metrics_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            metrics_in(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split(METRIC).skip(1).filter_map(|rest| rest.split('"').next());
            let names = names.map(|name| format!("hanshu_{name}"));
            found.extend(names.filter(|name| METRIC_ENDS.iter().any(|end| name.ends_with(end))));
        }
    }
}

#[test]
fn every_setting_is_in_the_reference_with_its_variable_and_default() {
    let rows: BTreeMap<String, Vec<String>> =
        table("key").into_iter().map(|row| (row[0].trim_matches('`').to_owned(), row)).collect();
    let settings = settings();
    assert!(30 < settings.len(), "{settings:?}");
    let mut wrong = Vec::new();
    for (key, default) in &settings {
        let Some(row) = rows.get(key) else {
            wrong.push(format!("`{key}` is missing"));
            continue;
        };
        let variable = format!("`HANSHU_{}`", key.replace('.', "__").to_uppercase());
        if row[1] != variable {
            wrong.push(format!("`{key}`: the variable is {variable}, not {}", row[1]));
        }
        match format_default(default) {
            Some(default) if row[2] != default => {
                wrong.push(format!("`{key}`: the default is {default}, not {}", row[2]));
            }
            None if row[2].is_empty() => wrong.push(format!("`{key}`: what is the default?")),
            Some(_) | None => {}
        }
        if row.get(3).is_none_or(String::is_empty) {
            wrong.push(format!("`{key}` has no meaning"));
        }
    }
    let unknown = rows.keys().filter(|key| !settings.contains_key(*key));
    wrong.extend(unknown.map(|key| format!("`{key}` is no setting")));
    assert!(wrong.is_empty(), "docs/operations.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_metric_is_explained() {
    let mut counted = BTreeSet::new();
    for folder in ["controller", "gateway", "invoker", "server", "store", "triggers"] {
        metrics_in(&root().join(folder).join("src"), &mut counted);
    }
    assert!(10 < counted.len(), "{counted:?}");
    let explained: BTreeSet<String> =
        table("metric").into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(counted, explained, "left: in the sources, right: in docs/operations.md");
}
