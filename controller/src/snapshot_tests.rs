//! A snapshot made by steps is the one that is made at once.

use std::collections::BTreeMap;
use std::time::Duration;

use hanshu_core::ports::FunctionRow;
use hanshu_core::{
    AsyncPolicy, FunctionConfig, TimerTrigger, Timestamp, Trigger, TriggerId, TriggerSpec,
};
use proptest::prelude::*;

use super::*;

fn function(number: u8) -> FunctionId {
    let namespace = if number < 3 { "one" } else { "two" };
    let name = format!("fn-{number}").parse().unwrap();
    FunctionId { namespace: namespace.parse().unwrap(), name }
}

/// `$LATEST` and versions, with revisions of these numbers, and so many timers.
fn entry(number: u8, revisions: &[u8], timers: u8) -> FunctionEntry {
    let at = Timestamp::UNIX_EPOCH;
    let revision = |(index, revision): (u32, &u8)| {
        let config = FunctionConfig {
            runtime: "python".parse().unwrap(),
            handler: "index.main_handler".into(),
            memory_mb: 128,
            timeout: Duration::from_secs(3),
            init_timeout: Duration::from_secs(10),
            concurrency: None,
            network: None,
            async_policy: AsyncPolicy::default(),
            env: BTreeMap::new(),
        };
        let version = match index {
            0 => Qualifier::Latest,
            number => Qualifier::Version(number),
        };
        let (digest, code) = (Digest::from_bytes([*revision; 32]), Digest::from_bytes([7; 32]));
        (Revision { function: function(number), version, digest, code, config }, at)
    };
    let timer = |index: u8| {
        let name = format!("timer-{index}").parse().unwrap();
        let spec = TriggerSpec::new(TimerTrigger::default());
        Trigger { id: TriggerId { function: function(number), name }, spec, enabled: true }
    };
    FunctionEntry {
        row: FunctionRow { created_at: at, updated_at: at },
        revisions: (0..).zip(revisions).map(revision).collect(),
        triggers: (0..timers).map(timer).collect(),
    }
}

fn of(model: &BTreeMap<FunctionId, FunctionEntry>, counter: i64) -> CatalogSnapshot {
    CatalogSnapshot::new(RegistrySnapshot { counter, functions: model.values().cloned().collect() })
}

fn revisions(snapshot: &CatalogSnapshot) -> BTreeMap<&FunctionId, &[Digest]> {
    snapshot.revisions().collect()
}

fn live(snapshot: &CatalogSnapshot) -> BTreeMap<(&FunctionId, String), &Revision> {
    let key = |each: &'_ Revision| each.version.to_string();
    snapshot.live().map(|each| ((&each.function, key(each)), &**each)).collect()
}

fn change() -> impl Strategy<Value = (u8, Option<FunctionEntry>)> {
    let kept = (prop::collection::vec(0u8..4, 1..3), 0u8..3);
    (0u8..6, prop::option::weighted(0.7, kept)).prop_map(|(number, kept)| {
        (number, kept.map(|(revisions, timers)| entry(number, &revisions, timers)))
    })
}

proptest! {
    #[test]
    fn steps_lead_to_what_is_read_anew(
        steps in prop::collection::vec(prop::collection::btree_map(0u8..6, change(), 0..3), 1..12),
    ) {
        let mut model = BTreeMap::new();
        let mut now = CatalogSnapshot::default();
        for (counter, step) in (1..).zip(steps) {
            let changed: BTreeMap<_, _> =
                step.into_values().map(|(number, entry)| (function(number), entry)).collect();
            for (id, entry) in &changed {
                match entry {
                    Some(entry) => model.insert(id.clone(), entry.clone()),
                    None => model.remove(id),
                };
            }
            let before = now;
            now = before.with(counter, changed.clone().into_iter().collect());
            let anew = of(&model, counter);
            prop_assert_eq!(now.counter, anew.counter);
            prop_assert_eq!(now.list(None), anew.list(None));
            prop_assert_eq!(&now.triggers, &anew.triggers);
            prop_assert_eq!(revisions(&now), revisions(&anew));
            prop_assert_eq!(live(&now), live(&anew));
            prop_assert_eq!(now.packages(), anew.packages());
            prop_assert_eq!(
                now.functions.keys().collect::<BTreeSet<_>>(),
                anew.functions.keys().collect::<BTreeSet<_>>()
            );
            let told: BTreeMap<_, _> = now.revisions_since(&before).collect();
            for (id, digests) in &told {
                prop_assert!(changed.contains_key(id), "only what has changed is told");
                prop_assert_eq!(*digests, revisions(&now).get(*id).copied().unwrap_or_default());
            }
            let missed = changed.iter().find(|(id, entry)| {
                !told.contains_key(*id) && (entry.is_some() || before.function(id).is_some())
            });
            prop_assert!(missed.is_none(), "{missed:?} is not told");
        }
    }
}
