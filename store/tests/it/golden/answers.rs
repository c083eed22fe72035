//! What is kept, as the API of the program that wrote the golden files showed it: its answers are
//! what a test compares with.

use std::collections::BTreeMap;

use hanshu_core::ports::{FunctionEntry, QueueStats};
use hanshu_core::{
    AsyncState, Digest, Failure, FunctionConfig, FunctionId, HttpAuth, HttpTrigger,
    InvocationRecord, LogLine, LogSource, Qualifier, RedisTrigger, StatusCode, TimerTrigger,
    Timestamp, Trigger,
};
use serde_json::{Value, json};

/// The zone of timers that name none: the server's.
const SERVER_ZONE: &str = "UTC";

pub(crate) fn function(entry: &FunctionEntry) -> Value {
    let (latest, _) = &entry.revisions[0];
    let mut view = revision(&latest.function, &latest.digest, (&latest.config, &latest.code));
    let triggers: Vec<_> = entry.triggers.iter().map(trigger).collect();
    let versions = entry.revisions.iter().filter_map(|(each, at)| match each.version {
        Qualifier::Latest => None,
        Qualifier::Version(version) => Some(json!({
            "version": version,
            "digest": each.digest.as_str(),
            "code": each.code.as_str(),
            "publishedAt": at.to_string(),
        })),
    });
    view["triggers"] = triggers.into();
    view["versions"] = versions.collect::<Vec<_>>().into();
    view["createdAt"] = entry.row.created_at.to_string().into();
    view["updatedAt"] = entry.row.updated_at.to_string().into();
    view
}

pub(crate) fn revision(
    function: &FunctionId,
    digest: &Digest,
    (config, code): (&FunctionConfig, &Digest),
) -> Value {
    assert_eq!(config.timeout.subsec_nanos() + config.init_timeout.subsec_nanos(), 0);
    let policy = &config.async_policy;
    json!({
        "namespace": function.namespace.as_str(),
        "name": function.name.as_str(),
        "digest": digest.as_str(),
        "code": code.as_str(),
        "runtime": config.runtime.name(),
        "handler": config.handler,
        "memoryMb": config.memory_mb,
        "timeoutS": config.timeout.as_secs(),
        "initTimeoutS": config.init_timeout.as_secs(),
        "concurrency": config.concurrency,
        "network": config.network,
        "async": {
            "maxAttempts": policy.max_attempts,
            "retryDelayS": policy.retry_delay.as_secs(),
            "maxAgeS": policy.max_age.as_secs(),
            "maxWaiting": policy.max_waiting,
        },
        "env": config.env,
    })
}

/// A URL with its password: that is compared apart.
fn trigger(trigger: &Trigger) -> Value {
    let spec = &trigger.spec;
    let mut view = if let Some(TimerTrigger { cron, timezone, argument }) = spec.get() {
        json!({
            "type": "timer",
            "cron": cron,
            "timezone": timezone.as_deref().unwrap_or(SERVER_ZONE),
            "argument": argument,
        })
    } else if let Some(HttpTrigger { path, methods, auth, key }) = spec.get() {
        let (auth, is_keyed) = match auth {
            HttpAuth::None => ("none", false),
            HttpAuth::Key => ("key", true),
        };
        let mut view = json!({ "type": "http", "path": path, "methods": methods, "auth": auth });
        assert_eq!(key.is_some(), is_keyed);
        if let Some(key) = key {
            view["key"] = key.expose().into();
        }
        view
    } else if let Some(RedisTrigger { url, stream, batch }) = spec.get() {
        json!({ "type": "redis", "url": url.expose(), "stream": stream, "batch": batch })
    } else {
        panic!("{spec:?}")
    };
    view["name"] = trigger.id.name.as_str().into();
    view["enabled"] = trigger.enabled.into();
    view
}

/// An event whose state is kept beside its queue.
pub(crate) fn queued(state: &AsyncState) -> Value {
    let attempts = state.attempts.iter().map(|each| {
        json!({
            "number": each.number,
            "startedAt": each.started_at.to_string(),
            "endedAt": each.ended_at.map(|at| at.to_string()),
            "statusCode": each.status.map(StatusCode::number),
            "node": each.node.as_ref().map(|node| node.as_str()),
            "cold": each.cold,
        })
    });
    let result: Option<Value> =
        state.result.as_ref().map(|text| serde_json::from_str(text).unwrap());
    json!({
        "requestId": state.request_id.to_string(),
        "namespace": state.function.namespace.as_str(),
        "function": state.function.name.as_str(),
        "version": state.version.to_string(),
        "trigger": state.trigger.as_ref().map(|name| name.as_str()),
        "state": state.state.as_str(),
        "attempts": attempts.collect::<Vec<_>>(),
        "acceptedAt": state.accepted_at.to_string(),
        "endedAt": state.ended_at.map(|at| at.to_string()),
        "result": result,
        "error": state.error.as_ref().map(failure),
    })
}

/// A call of which the journal alone knows, from its attempts' records.
pub(crate) fn recorded(records: &[InvocationRecord]) -> Value {
    let last = records.last().unwrap();
    let attempts: Vec<_> = records.iter().map(attempt).collect();
    let born_ms = i64::try_from(last.request_id.born_ms().unwrap()).unwrap();
    json!({
        "requestId": last.request_id.to_string(),
        "namespace": last.function.namespace.as_str(),
        "function": last.function.name.as_str(),
        "version": last.version.to_string(),
        "trigger": last.trigger.as_ref().map(|name| name.as_str()),
        "state": if last.status == StatusCode::Success { "succeeded" } else { "failed" },
        "acceptedAt": Timestamp::from_millisecond(born_ms).unwrap().to_string(),
        "endedAt": attempts.last().unwrap()["endedAt"],
        "attempts": attempts,
        "result": null,
        "error": last.error.as_ref().map(failure),
    })
}

/// An attempt, as its record says.
pub(crate) fn attempt(record: &InvocationRecord) -> Value {
    json!({
        "number": record.attempt,
        "startedAt": record.started_at.to_string(),
        "endedAt": (record.started_at + record.duration).to_string(),
        "statusCode": record.status.number(),
        "node": record.node.as_ref().map(|node| node.as_str()),
        "cold": record.cold,
    })
}

fn failure(failure: &Failure) -> Value {
    let mut view = json!({
        "errorCode": failure.error_code,
        "errorMessage": failure.error_message,
        "statusCode": failure.status_code.number(),
    });
    for (key, text) in [("errorType", &failure.error_type), ("stackTrace", &failure.stack_trace)] {
        if let Some(text) = text {
            view[key] = text.as_str().into();
        }
    }
    view
}

pub(crate) fn line(line: &LogLine) -> Value {
    json!({
        "time": line.time.to_string(),
        "requestId": line.request_id.map(|id| id.to_string()),
        "from": match line.from {
            LogSource::Function => "function",
            LogSource::Platform => "platform",
        },
        "text": line.text,
    })
}

pub(crate) fn stats(stats: &QueueStats) -> Value {
    let QueueStats { queue, waiting, running, oldest, dead_lettered } = stats;
    json!({
        "namespace": queue.function.namespace.as_str(),
        "function": queue.function.name.as_str(),
        "trigger": queue.trigger.as_ref().map(|name| name.as_str()),
        "waiting": waiting,
        "running": running,
        "oldestAt": oldest.map(|at| at.to_string()),
        "buried": dead_lettered,
    })
}

/// An answer about an invocation with its trigger's name only: the kind is the trigger's own.
pub(crate) fn without_kind(answer: &Value) -> Value {
    let mut answer = answer.clone();
    answer["trigger"] = answer["trigger"]["name"].take();
    answer
}

/// A list of answers by one of their fields.
pub(crate) fn by(answers: &Value, key: &str) -> BTreeMap<String, Value> {
    let all = answers.as_array().unwrap();
    all.iter().map(|each| (each[key].as_str().unwrap().to_owned(), each.clone())).collect()
}
