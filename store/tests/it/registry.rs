//! The contract of `FunctionRegistry`, except for its log of changes.

use hanshu_core::ports::{
    AccessKey, DeployResult, FunctionRegistry, NewDeployment, ReplacedRevision, StoreError,
};
use hanshu_core::{ErrorKind, HttpAuth, HttpTrigger, Qualifier, Secret, TriggerId, TriggerSpec};
use hanshu_store::SqlRegistry;

use crate::registries::{
    at, config, counter, deployment, digest, everything, function, registries, timer, trigger,
};

fn http(path: &str, methods: &[&str], key: Option<&str>) -> TriggerSpec {
    TriggerSpec::new(HttpTrigger {
        path: path.into(),
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        auth: if key.is_some() { HttpAuth::Key } else { HttpAuth::None },
        key: key.map(Secret::new),
    })
}

async fn deploy_route(
    registry: &SqlRegistry,
    name: &str,
    path: &str,
    methods: &[&str],
) -> Result<DeployResult, StoreError> {
    let triggers = vec![trigger(name, "web", http(path, methods, None))];
    registry.deploy(NewDeployment { triggers, ..deployment(name, 1, 10) }).await
}

#[tokio::test]
async fn a_deploy_is_what_the_next_snapshot_shows() {
    for (name, registry, _db) in registries().await {
        let triggers = vec![
            trigger("hello", "web", http("/hello/{name}", &["GET"], Some("k"))),
            trigger("hello", "tick", timer("*/5 * * * * * *")),
        ];
        let asked = NewDeployment { triggers: triggers.clone(), ..deployment("hello", 1, 10) };
        let done = registry.deploy(asked.clone()).await.unwrap();
        assert!(done.changed && done.removed.is_empty(), "{name}");
        let all = everything(&registry).await;
        let [entry] = &all.functions[..] else { panic!("{name}: {all:?}") };
        let (latest, since) = &entry.revisions[0];
        assert_eq!((latest.version, *since), (Qualifier::Latest, at(10)));
        assert_eq!((&latest.digest, &latest.code), (&asked.revision, &asked.code));
        assert_eq!(latest.config, asked.config, "{name}");
        assert_eq!((entry.row.created_at, entry.row.updated_at), (at(10), at(10)));
        assert_eq!(entry.triggers, [triggers[1].clone(), triggers[0].clone()], "by name: {name}");
    }
}

#[tokio::test]
async fn a_deploy_that_changes_nothing_does_not_raise_the_counter() {
    for (name, registry, _db) in registries().await {
        let triggers = vec![trigger("hello", "tick", timer("0 0 * * *"))];
        let asked = NewDeployment { triggers, ..deployment("hello", 1, 10) };
        registry.deploy(asked.clone()).await.unwrap();
        let before = counter(&registry).await;
        let done = registry.deploy(NewDeployment { now: at(20), ..asked }).await.unwrap();
        assert!(!done.changed, "{name}");
        assert_eq!(done.triggers.len(), 1, "{name}");
        assert_eq!(counter(&registry).await, before, "{name}");
    }
}

#[tokio::test]
async fn every_change_raises_the_counter() {
    for (name, registry, _db) in registries().await {
        let mut last = counter(&registry).await;
        let mut raised = async |what: &str| {
            let now = counter(&registry).await;
            assert!(last < now, "{name}: {what} left the counter at {last}");
            last = now;
        };
        let triggers = vec![trigger("hello", "tick", timer("0 0 * * *"))];
        let asked = NewDeployment { triggers, ..deployment("hello", 1, 10) };
        registry.deploy(asked.clone()).await.unwrap();
        raised("a deploy").await;
        let id = asked.triggers[0].id.clone();
        registry.enable(&id, false).await.unwrap();
        raised("a switch").await;
        registry.publish(&asked.function, at(11)).await.unwrap();
        raised("a publish").await;
        registry.deploy(NewDeployment { triggers: vec![], ..asked.clone() }).await.unwrap();
        raised("a trigger's end").await;
        registry.delete(&asked.function).await.unwrap();
        raised("a delete").await;
    }
}

#[tokio::test]
async fn triggers_gone_from_a_deploy_are_removed() {
    for (name, registry, _db) in registries().await {
        let triggers = vec![
            trigger("hello", "one", timer("0 0 * * *")),
            trigger("hello", "two", timer("0 1 * * *")),
        ];
        let asked = NewDeployment { triggers: triggers.clone(), ..deployment("hello", 1, 10) };
        registry.deploy(asked.clone()).await.unwrap();
        let changed = trigger("hello", "two", timer("0 2 * * *"));
        let next = NewDeployment { triggers: vec![changed.clone()], ..asked };
        let done = registry.deploy(next).await.unwrap();
        assert!(!done.changed, "neither code nor configuration: {name}");
        assert_eq!(done.removed, [triggers[0].id.clone()], "{name}");
        let all = everything(&registry).await;
        assert_eq!(all.functions[0].triggers, [changed], "{name}");
    }
}

#[tokio::test]
async fn the_key_of_an_http_trigger_survives_deploys() {
    for (name, registry, _db) in registries().await {
        let with = |key: &str| {
            let triggers = vec![trigger("hello", "web", http("/h", &["GET"], Some(key)))];
            NewDeployment { triggers, ..deployment("hello", 1, 10) }
        };
        registry.deploy(with("first")).await.unwrap();
        let done = registry.deploy(with("second")).await.unwrap();
        let http = done.triggers[0].spec.get::<HttpTrigger>().unwrap();
        assert_eq!(http.key, Some(Secret::new("first")), "{name}");
    }
}

#[tokio::test]
async fn an_http_route_has_one_owner() {
    for (name, registry, _db) in registries().await {
        deploy_route(&registry, "first", "/orders/{id}", &["GET", "POST"]).await.unwrap();
        let same = deploy_route(&registry, "second", "/orders/{other}", &["POST"]).await;
        let error = same.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{name}: {error}");
        assert!(error.to_string().contains("default/first"), "{name}: {error}");
        let any = deploy_route(&registry, "second", "/orders/{id}", &[]).await;
        assert_eq!(any.unwrap_err().kind(), ErrorKind::Conflict, "{name}");
        let all = everything(&registry).await;
        assert_eq!(all.functions.len(), 1, "a refused deploy leaves nothing: {name}");
        deploy_route(&registry, "second", "/orders/{id}", &["DELETE"]).await.unwrap();
        registry.delete(&function("first")).await.unwrap();
        deploy_route(&registry, "third", "/orders/{id}", &["GET"]).await.unwrap();
    }
}

#[tokio::test]
async fn two_triggers_of_one_function_cannot_have_one_route() {
    for (name, registry, _db) in registries().await {
        let triggers = vec![
            trigger("hello", "one", http("/a", &["GET"], None)),
            trigger("hello", "two", http("/a", &["GET"], None)),
        ];
        let done = registry.deploy(NewDeployment { triggers, ..deployment("hello", 1, 10) }).await;
        assert_eq!(done.unwrap_err().kind(), ErrorKind::Conflict, "{name}");
    }
}

#[tokio::test]
async fn of_deploys_at_once_one_gets_the_route() {
    for (name, registry, _db) in registries().await {
        let names = ["aa", "bb", "cc", "dd", "ee", "ff"];
        let deploys = names.map(|function| deploy_route(&registry, function, "/same", &["GET"]));
        let done = futures_util::future::join_all(deploys).await;
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "{name}: {done:?}");
        for error in done.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{name}: {error}");
        }
    }
}

#[tokio::test]
async fn publishing_makes_versions_from_one() {
    for (name, registry, _db) in registries().await {
        let hello = function("hello");
        registry.deploy(deployment("hello", 1, 10)).await.unwrap();
        let one = registry.publish(&hello, at(11)).await.unwrap();
        assert_eq!((one.version, one.digest), (Qualifier::Version(1), digest(1)), "{name}");
        let before = counter(&registry).await;
        let same = registry.publish(&hello, at(12)).await.unwrap();
        assert_eq!(same.version, Qualifier::Version(1), "nothing new to publish: {name}");
        assert_eq!(counter(&registry).await, before, "{name}");
        registry.deploy(deployment("hello", 2, 13)).await.unwrap();
        registry.publish(&hello, at(14)).await.unwrap();
        let all = everything(&registry).await;
        let shown: Vec<_> = all.functions[0]
            .revisions
            .iter()
            .map(|(revision, since)| (revision.version, revision.config.memory_mb, *since))
            .collect();
        let expected = [
            (Qualifier::Latest, 256, at(13)),
            (Qualifier::Version(1), 128, at(11)),
            (Qualifier::Version(2), 256, at(14)),
        ];
        assert_eq!(shown, expected, "{name}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    for (name, registry, _db) in registries().await {
        let absent = function("absent");
        let trigger = TriggerId { function: absent.clone(), name: "t".parse().unwrap() };
        let errors = [
            registry.publish(&absent, at(1)).await.err(),
            registry.delete(&absent).await.err(),
            registry.enable(&trigger, true).await.err(),
        ];
        for error in errors {
            let error = error.unwrap();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
            assert!(error.to_string().contains("default/absent"), "{name}: {error}");
        }
        assert_eq!(counter(&registry).await, 0, "{name}");
        assert_eq!(registry.revision(&absent, &digest(1)).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn a_replaced_revision_is_kept_until_it_is_collected() {
    for (name, registry, _db) in registries().await {
        let hello = function("hello");
        for (revision, now) in [(1, 10), (2, 20), (3, 30)] {
            registry.deploy(deployment("hello", revision, now)).await.unwrap();
            if revision == 2 {
                registry.publish(&hello, at(25)).await.unwrap();
            }
        }
        let (kept, code) = registry.revision(&hello, &digest(1)).await.unwrap().unwrap();
        assert_eq!((kept, code), (config(128), digest(101)), "{name}");
        let before = registry.replaced(at(20)).await.unwrap();
        assert_eq!(before, [], "replaced at 20, so not before it: {name}");
        let replaced = registry.replaced(at(1000)).await.unwrap();
        let first = ReplacedRevision { function: hello.clone(), digest: digest(1) };
        assert_eq!(replaced, [first], "the others are published or live: {name}");
        assert_eq!(registry.packages().await.unwrap().len(), 3, "{name}");
        registry.forget(&replaced, at(1000)).await.unwrap();
        let mut named = registry.packages().await.unwrap();
        named.sort();
        assert_eq!(named, [digest(102), digest(103)], "{name}");
        assert_eq!(registry.revision(&hello, &digest(1)).await.unwrap(), None, "{name}");
        assert!(registry.revision(&hello, &digest(2)).await.unwrap().is_some(), "published");
        assert!(registry.revision(&hello, &digest(3)).await.unwrap().is_some(), "live");
    }
}

#[tokio::test]
async fn a_revision_that_is_live_again_is_not_forgotten() {
    for (name, registry, _db) in registries().await {
        let hello = function("hello");
        for (revision, now) in [(1, 10), (2, 20)] {
            registry.deploy(deployment("hello", revision, now)).await.unwrap();
        }
        let replaced = registry.replaced(at(50)).await.unwrap();
        assert_eq!(replaced.len(), 1, "{name}");
        registry.deploy(deployment("hello", 1, 30)).await.unwrap();
        registry.forget(&replaced, at(50)).await.unwrap();
        assert!(registry.revision(&hello, &digest(1)).await.unwrap().is_some(), "live: {name}");
        registry.deploy(deployment("hello", 2, 60)).await.unwrap();
        registry.forget(&replaced, at(50)).await.unwrap();
        assert!(registry.revision(&hello, &digest(1)).await.unwrap().is_some(), "new: {name}");
        registry.forget(&replaced, at(70)).await.unwrap();
        assert_eq!(registry.revision(&hello, &digest(1)).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn a_deleted_function_leaves_nothing() {
    for (name, registry, _db) in registries().await {
        let hello = function("hello");
        let triggers = vec![trigger("hello", "web", http("/h", &[], None))];
        let asked = NewDeployment { triggers, ..deployment("hello", 1, 10) };
        registry.deploy(asked.clone()).await.unwrap();
        registry.publish(&hello, at(11)).await.unwrap();
        registry.delete(&hello).await.unwrap();
        assert!(everything(&registry).await.functions.is_empty(), "{name}");
        assert_eq!(registry.revision(&hello, &digest(1)).await.unwrap(), None, "{name}");
        registry.deploy(NewDeployment { now: at(20), ..asked }).await.unwrap();
        let all = everything(&registry).await;
        assert_eq!(all.functions[0].revisions.len(), 1, "no old version comes back: {name}");
        assert_eq!(all.functions[0].row.created_at, at(20), "{name}");
    }
}

#[tokio::test]
async fn access_keys_are_kept_and_never_replaced() {
    for (name, registry, _db) in registries().await {
        let key = AccessKey { id: "AKIDx".into(), sealed: "c2VhbGVk".into(), created_at: at(5) };
        registry.add_key(key.clone()).await.unwrap();
        let other = AccessKey { sealed: "b3RoZXI=".into(), ..key.clone() };
        let error = registry.add_key(other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{name}: {error}");
        assert_eq!(registry.keys().await.unwrap(), [key], "{name}");
    }
}

#[tokio::test]
async fn a_snapshot_under_deploys_is_of_one_moment() {
    for (name, registry, _db) in registries().await {
        registry.deploy(deployment("hello", 1, 1)).await.unwrap();
        let start = counter(&registry).await;
        let deploying = async {
            for turn in 1..=20u8 {
                registry.deploy(deployment("hello", 1 + turn, i64::from(turn))).await.unwrap();
            }
        };
        let reading = async {
            for _ in 0..20 {
                let all = everything(&registry).await;
                let turn = u8::try_from(all.counter - start).unwrap();
                let (latest, _) = &all.functions[0].revisions[0];
                assert_eq!(latest.digest, digest(1 + turn), "{name}");
            }
        };
        tokio::join!(deploying, reading);
    }
}
