//! Functions, triggers and queues as the API shows them.

use std::time::Duration;

use hanshu_api::wire::{
    AsyncSettings, DeployedFunction, FunctionDetail, FunctionSummary, QueueView, TriggerDetail,
    TriggerTick, VersionView,
};
use hanshu_controller::Deployment;
use hanshu_core::ports::{FunctionEntry, QueueStats};
use hanshu_core::{AsyncPolicy, Qualifier, Timestamp, Trigger};
use hanshu_triggers::{TickView, ViewContext, view_trigger};

use crate::state::Gateway;

pub(crate) fn deployed(gateway: &Gateway, done: Deployment) -> DeployedFunction {
    DeployedFunction {
        triggers: triggers(gateway, &done.triggers),
        removed: done.removed.into_iter().map(|id| id.name).collect(),
        digest: done.revision.digest,
        changed: done.changed,
        namespace: done.revision.function.namespace,
        name: done.revision.function.name,
    }
}

/// `None` for a function without a `$LATEST`, which no deploy makes.
pub(crate) fn summary(entry: &FunctionEntry) -> Option<FunctionSummary> {
    let (latest, _) = entry.revisions.first()?;
    Some(FunctionSummary {
        namespace: latest.function.namespace.clone(),
        name: latest.function.name.clone(),
        runtime: latest.config.runtime.name().to_owned(),
        memory_mb: latest.config.memory_mb,
        timeout_s: latest.config.timeout.as_secs(),
        digest: latest.digest.clone(),
        newest_version: versions(entry).last().map(|each| each.version),
        triggers: entry.triggers.len(),
        created_at: entry.row.created_at,
        updated_at: entry.row.updated_at,
    })
}

pub(crate) fn detail(gateway: &Gateway, entry: &FunctionEntry) -> Option<FunctionDetail> {
    let (latest, _) = entry.revisions.first()?;
    let config = &latest.config;
    Some(FunctionDetail {
        namespace: latest.function.namespace.clone(),
        name: latest.function.name.clone(),
        digest: latest.digest.clone(),
        code: latest.code.clone(),
        runtime: config.runtime.name().to_owned(),
        handler: config.handler.clone(),
        memory_mb: config.memory_mb,
        timeout_s: config.timeout.as_secs(),
        init_timeout_s: config.init_timeout.as_secs(),
        concurrency: config.concurrency,
        network: config.network,
        async_settings: async_settings(&config.async_policy),
        env: config.env.clone(),
        triggers: triggers(gateway, &entry.triggers),
        versions: versions(entry),
        created_at: entry.row.created_at,
        updated_at: entry.row.updated_at,
    })
}

fn async_settings(policy: &AsyncPolicy) -> AsyncSettings {
    AsyncSettings {
        max_attempts: Some(policy.max_attempts),
        retry_delay_s: Some(seconds(policy.retry_delay)),
        max_age_s: Some(seconds(policy.max_age)),
        max_waiting: Some(policy.max_waiting),
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

pub(crate) fn versions(entry: &FunctionEntry) -> Vec<VersionView> {
    let published = entry.revisions.iter().filter_map(|(revision, at)| match revision.version {
        Qualifier::Latest => None,
        Qualifier::Version(version) => Some(VersionView {
            version,
            digest: revision.digest.clone(),
            code: revision.code.clone(),
            published_at: *at,
        }),
    });
    published.collect()
}

pub(crate) fn triggers(gateway: &Gateway, all: &[Trigger]) -> Vec<TriggerDetail> {
    all.iter().map(|each| trigger(gateway, each)).collect()
}

pub(crate) fn trigger(gateway: &Gateway, trigger: &Trigger) -> TriggerDetail {
    let context = ViewContext {
        now: gateway.clock.now(),
        timezone: &gateway.options.timezone,
        http_url: &gateway.options.http_url,
        enabled: trigger.enabled,
    };
    let view = view_trigger(&trigger.spec, &context);
    let ticks = view.next_ticks.into_iter();
    TriggerDetail {
        name: trigger.id.name.clone(),
        kind: trigger.spec.kind(),
        enabled: trigger.enabled,
        summary: view.summary,
        next_ticks: ticks.map(|TickView { at, local }| TriggerTick { at, local }).collect(),
        health_problem: gateway.trigger_health.problem(&trigger.id),
        fields: view.fields,
    }
}

pub(crate) fn queue(stats: QueueStats, now: Timestamp) -> QueueView {
    let age = |oldest: Timestamp| {
        u64::try_from(now.as_second().saturating_sub(oldest.as_second())).unwrap_or(0)
    };
    QueueView {
        namespace: stats.queue.function.namespace,
        function: stats.queue.function.name,
        trigger: stats.queue.trigger,
        waiting: stats.waiting,
        running: stats.running,
        oldest_at: stats.oldest,
        oldest_age_s: stats.oldest.map(age),
        dead_lettered: stats.dead_lettered,
    }
}
