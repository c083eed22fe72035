//! Golden files (`store/tests/golden/README.md`): the digest of every revision that an earlier
//! program deployed is the one that this program gives it, so that deploying an unchanged function
//! after an upgrade changes nothing, and access keys can be opened.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hanshu_core::{AsyncPolicy, Digest, FunctionConfig, FunctionId};
use serde_json::Value;

use crate::access::MasterKey;
use crate::revision_digest::revision_digest;

fn versions() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../store/tests/golden");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let is_version = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with('v');
    entries.map(|entry| entry.path()).filter(is_version).collect()
}

fn read(folder: &Path, file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join(file)).unwrap()).unwrap()
}

/// The configuration that the API showed.
fn config(shown: &Value) -> FunctionConfig {
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().unwrap());
    let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let policy = &shown["async"];
    let env: BTreeMap<String, String> = serde_json::from_value(shown["env"].clone()).unwrap();
    FunctionConfig {
        runtime: shown["runtime"].as_str().unwrap().parse().unwrap(),
        handler: shown["handler"].as_str().unwrap().into(),
        memory_mb: number(&shown["memoryMb"]),
        timeout: seconds(&shown["timeoutS"]),
        init_timeout: seconds(&shown["initTimeoutS"]),
        concurrency: shown["concurrency"].as_u64().map(|limit| u32::try_from(limit).unwrap()),
        network: shown["network"].as_bool(),
        async_policy: AsyncPolicy {
            max_attempts: number(&policy["maxAttempts"]),
            retry_delay: seconds(&policy["retryDelayS"]),
            max_age: seconds(&policy["maxAgeS"]),
            max_waiting: number(&policy["maxWaiting"]),
        },
        env,
    }
}

#[test]
fn the_digest_of_every_golden_revision_is_the_same_now() {
    let mut count = 0;
    for version in versions() {
        for file in ["sqlite/answers.json", "postgres/answers.json", "redis/answers.json"] {
            for shown in read(&version, file)["revisions"].as_array().unwrap() {
                let text = |key: &str| shown[key].as_str().unwrap();
                let function = FunctionId {
                    namespace: text("namespace").parse().unwrap(),
                    name: text("name").parse().unwrap(),
                };
                let code: Digest = text("code").parse().unwrap();
                let digest = revision_digest(&function, &config(shown), &code).unwrap();
                assert_eq!(digest.as_str(), text("digest"), "{} {function}", version.display());
                count += 1;
            }
        }
    }
    assert!(100 < count, "{count} revisions");
}

#[test]
fn the_golden_access_key_is_opened_with_its_master_key() {
    for version in versions() {
        let about = read(&version, "about.json");
        let master = MasterKey::from_hex(about["masterKey"].as_str().unwrap()).unwrap();
        let text = |key: &str| about["accessKey"][key].as_str().unwrap();
        let secret = master.open(text("id"), text("sealed")).unwrap();
        assert_eq!(secret.expose(), text("secret"), "{}", version.display());
    }
}
