//! Functions, revisions, triggers, access keys and nodes of golden databases.

use std::collections::BTreeSet;

use hanshu_core::ports::{
    FunctionEntry, FunctionRegistry as _, NewDeployment, NodeRegistry as _, RegistryChanges,
    RegistrySnapshot,
};
use hanshu_core::{
    Digest, FunctionId, Qualifier, RedisTrigger, TimerTrigger, Trigger, TriggerSpec,
};
use hanshu_store::{SqlNodes, SqlRegistry};
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection as _};

use super::answers;
use super::files::versions;
use super::places::{GoldenDb, databases};
use crate::registries::everything;

async fn registry(golden: &GoldenDb) -> SqlRegistry {
    SqlRegistry::new(golden.open().await)
}

fn id(answer: &Value) -> FunctionId {
    let text = |key: &str| answer[key].as_str().unwrap();
    FunctionId {
        namespace: text("namespace").parse().unwrap(),
        name: text("name").parse().unwrap(),
    }
}

/// As the API answered, which shows a URL's password as `***`.
fn to_json(entry: &FunctionEntry) -> Value {
    let mut entry = entry.clone();
    for Trigger { spec, .. } in &mut entry.triggers {
        if let Some(redis) = spec.get::<RedisTrigger>() {
            let url = redis.url.expose().replace("golden-password", "***");
            *spec = TriggerSpec::new(RedisTrigger {
                url: hanshu_core::Secret::new(url),
                ..redis.clone()
            });
        }
    }
    answers::function(&entry)
}

fn named<'a>(all: &'a RegistrySnapshot, name: &str) -> &'a FunctionEntry {
    let wanted = |entry: &&FunctionEntry| entry.revisions[0].0.function.to_string() == name;
    all.functions.iter().find(wanted).unwrap()
}

#[tokio::test]
async fn every_function_version_and_trigger_is_there() {
    for golden in all_databases().await {
        let all = everything(&registry(&golden).await).await;
        let found: Vec<_> = all.functions.iter().map(to_json).collect();
        let mut expected = golden.answers["functions"].as_array().unwrap().clone();
        expected.sort_by_key(id);
        assert_eq!(found, expected, "{}", golden.name);
        assert!(10 < found.len(), "{}: {}", golden.name, found.len());
    }
}

#[tokio::test]
async fn the_url_of_a_stream_has_its_password() {
    for golden in all_databases().await {
        let all = everything(&registry(&golden).await).await;
        let about = golden.version.json("about.json");
        let [Trigger { spec, .. }] = &named(&all, "default/worker").triggers[..] else {
            panic!("{}: the worker reads a stream", golden.name);
        };
        let url = &spec.get::<RedisTrigger>().unwrap().url;
        assert_eq!(url.expose(), about["streamUrl"].as_str().unwrap(), "{}", golden.name);
    }
}

#[tokio::test]
async fn a_timer_without_a_zone_still_has_none() {
    for golden in all_databases().await {
        let all = everything(&registry(&golden).await).await;
        let zones: Vec<_> = named(&all, "default/hello")
            .triggers
            .iter()
            .filter_map(|each| each.spec.get::<TimerTrigger>())
            .map(|timer| timer.timezone.clone())
            .collect();
        assert_eq!(zones, [None, Some("Asia/Shanghai".to_owned())], "{}", golden.name);
    }
}

#[tokio::test]
async fn every_revision_is_there_a_replaced_one_too() {
    for golden in all_databases().await {
        let registry = registry(&golden).await;
        let live: BTreeSet<_> =
            everything(&registry).await.functions.iter().map(entry_id).collect();
        let (mut found, mut gone) = (0, 0);
        for answer in golden.answers["revisions"].as_array().unwrap() {
            let digest: Digest = answer["digest"].as_str().unwrap().parse().unwrap();
            let kept = registry.revision(&id(answer), &digest).await.unwrap();
            if let Some((config, code)) = kept {
                let view = answers::revision(&id(answer), &digest, (&config, &code));
                assert_eq!(view, *answer, "{}", golden.name);
                found += 1;
            } else {
                assert!(!live.contains(&id(answer)), "{}: {answer}", golden.name);
                gone += 1;
            }
        }
        assert!(2 * live.len() < found, "{}: {found} of {} functions", golden.name, live.len());
        assert!(0 < gone, "{}: a function was deleted", golden.name);
    }
}

fn entry_id(entry: &FunctionEntry) -> FunctionId {
    entry.revisions[0].0.function.clone()
}

#[tokio::test]
async fn the_log_of_changes_names_every_function_and_the_deleted_one() {
    for golden in all_databases().await {
        let registry = registry(&golden).await;
        let all = everything(&registry).await;
        assert_eq!(registry.changes(all.counter).await.unwrap(), RegistryChanges::Unchanged);
        let RegistryChanges::Some { counter, functions } = registry.changes(1).await.unwrap()
        else {
            panic!("{}: the log reaches back to the first change", golden.name);
        };
        assert_eq!(counter, all.counter, "{}", golden.name);
        let deleted: Vec<_> =
            functions.iter().filter(|(_, entry)| entry.is_none()).map(|(id, _)| id).collect();
        assert_eq!(deleted.len(), 1, "{}: {deleted:?}", golden.name);
        assert_eq!(deleted[0].to_string(), "default/gone", "{}", golden.name);
        let live: Vec<_> = functions.into_iter().filter_map(|(_, entry)| entry).collect();
        assert_eq!(live, all.functions, "{}", golden.name);
    }
}

#[tokio::test]
async fn what_was_deployed_before_can_be_deployed_published_switched_and_deleted() {
    for golden in all_databases().await {
        let registry = registry(&golden).await;
        let all = everything(&registry).await;
        let now = all.functions.iter().map(|entry| entry.row.updated_at).max().unwrap();
        for entry in &all.functions {
            let (latest, _) = &entry.revisions[0];
            let deployed = registry.deploy(deployment(entry, latest.digest.clone(), now)).await;
            let deployed = deployed.unwrap();
            assert!(!deployed.changed, "{}: {}", golden.name, latest.function);
            assert_eq!(deployed.triggers, entry.triggers, "{}", golden.name);
        }
        assert_eq!(everything(&registry).await, all, "{}: nothing has changed", golden.name);

        let entry = named(&all, "default/hello");
        let (hello, triggers) = (&entry.revisions[0].0.function, &entry.triggers);
        let newer = deployment(entry, crate::registries::digest(7), now);
        assert!(registry.deploy(newer).await.unwrap().changed, "{}", golden.name);
        let published = registry.publish(hello, now).await.unwrap();
        assert_eq!(published.version, Qualifier::Version(3), "{}", golden.name);
        registry.enable(&triggers[0].id, !triggers[0].enabled).await.unwrap();
        registry.delete(hello).await.unwrap();
        let left = everything(&registry).await;
        assert_eq!(left.functions.len() + 1, all.functions.len(), "{}", golden.name);
    }
}

fn deployment(
    entry: &FunctionEntry,
    revision: Digest,
    now: hanshu_core::Timestamp,
) -> NewDeployment {
    let (latest, _) = &entry.revisions[0];
    NewDeployment {
        function: latest.function.clone(),
        config: latest.config.clone(),
        code: latest.code.clone(),
        revision,
        triggers: entry.triggers.clone(),
        now,
    }
}

#[tokio::test]
async fn replaced_revisions_go_when_their_time_is_over() {
    for golden in all_databases().await {
        let registry = registry(&golden).await;
        let all = everything(&registry).await;
        let live = all.functions.iter().flat_map(|entry| &entry.revisions);
        let live: BTreeSet<_> = live.map(|(revision, _)| revision.code.clone()).collect();
        let now = all.functions.iter().map(|entry| entry.row.updated_at).max().unwrap();
        let later = now + crate::queue_kinds::DAY;
        let replaced = registry.replaced(later).await.unwrap();
        registry.forget(&replaced, later).await.unwrap();
        let named = registry.packages().await.unwrap();
        assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), live, "{}", golden.name);
        assert_eq!(everything(&registry).await, all, "{}", golden.name);
    }
}

/// That its secret can be opened is tested where keys are sealed.
#[tokio::test]
async fn the_access_key_is_there() {
    for golden in all_databases().await {
        let about = golden.version.json("about.json")["accessKey"].clone();
        let keys = registry(&golden).await.keys().await.unwrap();
        let [key] = &keys[..] else { panic!("{}: {keys:?}", golden.name) };
        assert_eq!(key.id, about["id"].as_str().unwrap(), "{}", golden.name);
        if golden.url.starts_with("sqlite:") {
            let created_at_us = key.created_at.as_microsecond();
            let found = json!({ "sealed": key.sealed, "createdAtUs": created_at_us });
            let expected =
                json!({ "sealed": about["sealed"], "createdAtUs": about["createdAtUs"] });
            assert_eq!(found, expected, "{}", golden.name);
        }
    }
}

#[tokio::test]
async fn an_invoker_is_there_while_its_lease_runs() {
    for version in versions() {
        let Some(golden) = super::places::postgres(version).await else { return };
        let nodes = SqlNodes::new(golden.open().await);
        assert_eq!(nodes.live().await.unwrap(), [], "{}: it ran out long ago", golden.name);
        let mut connection = AnyConnection::connect(&golden.url).await.unwrap();
        let renew = "UPDATE nodes SET lease_until = 9000000000000000";
        sqlx::raw_sql(renew).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let live = nodes.live().await.unwrap();
        let [node] = &live[..] else { panic!("{}: {live:?}", golden.name) };
        let found = (node.id.as_str(), node.url.as_str(), node.memory_mb);
        assert_eq!(found, ("golden-node", "http://golden:9100", 1536), "{}", golden.name);
    }
}

async fn all_databases() -> Vec<GoldenDb> {
    let mut all = Vec::new();
    for version in versions() {
        all.extend(databases(version).await);
    }
    all
}
