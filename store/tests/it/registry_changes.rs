//! Applying a registry's changes gives the same result as a full read.

use std::collections::BTreeMap;

use hanshu_core::FunctionId;
use hanshu_core::ports::{
    AccessKey, FunctionEntry, FunctionRegistry as _, NewDeployment, RegistryChanges,
    RegistrySnapshot, StoreError,
};
use hanshu_store::{SqlDatabase, SqlRegistry};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::registries::{at, deployment, everything, function, registries, timer, trigger};

/// A reader that only applies changes.
#[derive(Debug, Default)]
struct ChangeReader {
    counter: i64,
    functions: BTreeMap<FunctionId, FunctionEntry>,
    /// How often there was no way but to read everything.
    full_reads: usize,
}

impl ChangeReader {
    async fn refresh(&mut self, registry: &SqlRegistry) {
        match registry.changes(self.counter).await.unwrap() {
            RegistryChanges::Unchanged => {}
            RegistryChanges::Some { counter, functions } => {
                assert!(self.counter < counter, "told of the past");
                self.counter = counter;
                for (id, entry) in functions {
                    match entry {
                        Some(entry) => self.functions.insert(id, entry),
                        None => self.functions.remove(&id),
                    };
                }
            }
            RegistryChanges::All(all) => {
                self.full_reads += 1;
                self.counter = all.counter;
                let id = |entry: &FunctionEntry| entry.revisions[0].0.function.clone();
                self.functions = all.functions.into_iter().map(|each| (id(&each), each)).collect();
            }
        }
    }

    fn known(&self) -> RegistrySnapshot {
        let functions = self.functions.values().cloned().collect();
        RegistrySnapshot { counter: self.counter, functions }
    }
}

#[derive(Clone, Copy, Debug)]
enum RegistryStep {
    /// This revision, with so many timers.
    Deploy(u8, u8),
    Publish,
    Delete,
    Enable(bool),
    AddKey,
    /// The reader looks.
    Look,
}

fn steps() -> impl Strategy<Value = Vec<(u8, RegistryStep)>> {
    let step = prop_oneof![
        4 => (1u8..4, 0u8..3).prop_map(|(revision, timers)| RegistryStep::Deploy(revision, timers)),
        2 => Just(RegistryStep::Publish),
        1 => Just(RegistryStep::Delete),
        2 => any::<bool>().prop_map(RegistryStep::Enable),
        1 => Just(RegistryStep::AddKey),
        3 => Just(RegistryStep::Look),
    ];
    prop::collection::vec((0u8..5, step), 60)
}

/// Some are refused: there is no such function, or nothing to change.
async fn take(registry: &SqlRegistry, index: i64, (number, step): (u8, RegistryStep)) {
    let name = format!("fn-{number}");
    let done = match step {
        RegistryStep::Deploy(revision, timers) => {
            let timers = (0..timers).map(|n| trigger(&name, &format!("t{n}"), timer("0 0 * * *")));
            let asked =
                NewDeployment { triggers: timers.collect(), ..deployment(&name, revision, index) };
            registry.deploy(asked).await.map(drop)
        }
        RegistryStep::Publish => registry.publish(&function(&name), at(index)).await.map(drop),
        RegistryStep::Delete => registry.delete(&function(&name)).await,
        RegistryStep::Enable(on) => registry.enable(&trigger(&name, "t0", timer("")).id, on).await,
        RegistryStep::AddKey => registry.add_key(key(&index.to_string())).await,
        RegistryStep::Look => Ok(()),
    };
    assert!(matches!(done, Ok(()) | Err(StoreError::NotFound(_))), "{done:?}");
}

fn key(id: &str) -> AccessKey {
    AccessKey { id: id.into(), sealed: "c2VhbGVk".into(), created_at: at(5) }
}

#[tokio::test]
async fn changes_lead_to_what_a_full_read_shows() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..6 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        for (name, registry, _db) in registries().await {
            let mut reader = ChangeReader::default();
            registry.deploy(deployment("first", 1, 1)).await.unwrap();
            reader.refresh(&registry).await;
            for (index, step) in (0..).zip(&steps) {
                take(&registry, index, *step).await;
                if matches!(step.1, RegistryStep::Look) {
                    reader.refresh(&registry).await;
                    assert_eq!(reader.known(), everything(&registry).await, "{name} {steps:?}");
                }
            }
            assert_eq!(reader.full_reads, 1, "{name}: only the first");
        }
    }
}

#[tokio::test]
async fn a_change_is_told_once_and_alone() {
    for (name, registry, _db) in registries().await {
        for function in ["one", "two"] {
            registry.deploy(deployment(function, 1, 10)).await.unwrap();
        }
        let all = everything(&registry).await;
        assert_eq!(registry.changes(all.counter).await.unwrap(), RegistryChanges::Unchanged);
        registry.deploy(deployment("two", 2, 11)).await.unwrap();
        registry.publish(&function("two"), at(12)).await.unwrap();
        let now = everything(&registry).await;
        let functions = vec![(function("two"), Some(now.functions[1].clone()))];
        let changes = RegistryChanges::Some { counter: now.counter, functions };
        assert_eq!(registry.changes(all.counter).await.unwrap(), changes, "{name}");
        registry.add_key(key("AKIDx")).await.unwrap();
        let changes = RegistryChanges::Some { counter: now.counter + 1, functions: vec![] };
        assert_eq!(registry.changes(now.counter).await.unwrap(), changes, "{name}");
    }
}

#[tokio::test]
async fn a_refused_change_is_not_told() {
    for (name, registry, _db) in registries().await {
        registry.deploy(deployment("hello", 1, 10)).await.unwrap();
        registry.add_key(key("AKIDx")).await.unwrap();
        let before = everything(&registry).await.counter;
        registry.deploy(deployment("hello", 1, 11)).await.unwrap();
        registry.delete(&function("absent")).await.unwrap_err();
        registry.add_key(key("AKIDx")).await.unwrap_err();
        let now = registry.changes(before).await.unwrap();
        assert_eq!(now, RegistryChanges::Unchanged, "{name}");
        registry.delete(&function("hello")).await.unwrap();
        let functions = vec![(function("hello"), None)];
        let changes = RegistryChanges::Some { counter: before + 1, functions };
        assert_eq!(registry.changes(before).await.unwrap(), changes, "{name}: the counter, too");
    }
}

#[tokio::test]
async fn who_missed_too_much_is_told_everything() {
    for (name, registry, _db) in registries().await {
        let ticking = vec![trigger("hello", "t", timer("0 0 * * *"))];
        let id = ticking[0].id.clone();
        registry
            .deploy(NewDeployment { triggers: ticking, ..deployment("hello", 1, 1) })
            .await
            .unwrap();
        for turn in 0..301 {
            registry.enable(&id, turn % 2 == 0).await.unwrap();
        }
        let all = RegistryChanges::All(everything(&registry).await);
        assert_eq!(registry.changes(1).await.unwrap(), all, "{name}");
        assert_eq!(registry.changes(1000).await.unwrap(), all, "{name}: what is to come");
        let changes = registry.changes(2).await.unwrap();
        assert!(
            matches!(changes, RegistryChanges::Some { counter: 302, .. }),
            "{name}: {changes:?}"
        );
    }
}

#[tokio::test]
async fn two_processes_see_each_others_changes() {
    for (name, one, test) in registries().await {
        if name == "sqlite memory" {
            continue;
        }
        let two = SqlRegistry::new(SqlDatabase::open(&test.url).await.unwrap());
        one.deploy(deployment("first", 1, 1)).await.unwrap();
        let mut readers = [(&one, ChangeReader::default()), (&two, ChangeReader::default())];
        for (registry, reader) in &mut readers {
            reader.refresh(registry).await;
        }
        for turn in 1..=5u8 {
            let names = ["aa", "bb", "cc"];
            let deploys = names.map(|function| deployment(function, turn, i64::from(turn)));
            let [aa, bb, cc] = deploys;
            let (aa, bb, cc) = tokio::join!(one.deploy(aa), two.deploy(bb), one.deploy(cc));
            assert!(aa.is_ok() && bb.is_ok() && cc.is_ok(), "{name}: {aa:?} {bb:?} {cc:?}");
            let all = everything(&one).await;
            for (registry, reader) in &mut readers {
                reader.refresh(registry).await;
                assert_eq!(reader.known(), all, "{name}");
                assert_eq!(reader.full_reads, 1, "{name}");
            }
        }
    }
}
