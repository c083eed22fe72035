//! Registries on every database, and what is deployed in tests.

use std::time::Duration;

use hanshu_core::ports::{FunctionRegistry as _, NewDeployment, RegistryChanges, RegistrySnapshot};
use hanshu_core::{
    AsyncPolicy, Digest, FunctionConfig, FunctionId, Namespace, TimerTrigger, Timestamp, Trigger,
    TriggerId, TriggerSpec,
};
use hanshu_store::SqlRegistry;

use crate::databases::{TestDb, databases};

/// What the database is called, its registry, and what keeps it alive.
pub(crate) async fn registries() -> Vec<(&'static str, SqlRegistry, TestDb)> {
    let wrap = |test: TestDb| (test.name, SqlRegistry::new(test.db.clone()), test);
    databases().await.into_iter().map(wrap).collect()
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn digest(byte: u8) -> Digest {
    Digest::from_bytes([byte; 32])
}

pub(crate) fn function(name: &str) -> FunctionId {
    FunctionId { namespace: Namespace::default(), name: name.parse().unwrap() }
}

pub(crate) fn config(memory_mb: u32) -> FunctionConfig {
    FunctionConfig {
        runtime: "Python3.10".parse().unwrap(),
        handler: "index.main_handler".into(),
        memory_mb,
        timeout: Duration::from_millis(3500),
        init_timeout: Duration::from_secs(65),
        concurrency: Some(10),
        network: None,
        async_policy: AsyncPolicy::default(),
        env: [("GREETING".to_owned(), "héllo 中".to_owned())].into(),
    }
}

pub(crate) fn deployment(name: &str, revision: u8, now: i64) -> NewDeployment {
    NewDeployment {
        function: function(name),
        config: config(u32::from(revision) * 128),
        code: digest(revision + 100),
        revision: digest(revision),
        triggers: vec![],
        now: at(now),
    }
}

pub(crate) fn trigger(function_name: &str, name: &str, spec: TriggerSpec) -> Trigger {
    let id = TriggerId { function: function(function_name), name: name.parse().unwrap() };
    Trigger { id, spec, enabled: true }
}

pub(crate) fn timer(cron: &str) -> TriggerSpec {
    TriggerSpec::new(TimerTrigger { cron: cron.into(), timezone: None, argument: "x".into() })
}

/// Everything that is live.
pub(crate) async fn everything(registry: &SqlRegistry) -> RegistrySnapshot {
    match registry.changes(0).await.unwrap() {
        RegistryChanges::All(all) => all,
        other => panic!("since 0 it is everything: {other:?}"),
    }
}

pub(crate) async fn counter(registry: &SqlRegistry) -> i64 {
    everything(registry).await.counter
}
