//! The rows of the table of kinds.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::*;
use crate::secret::Secret;

fn fields(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

#[test]
fn the_rows_are_complete_and_differ() {
    let (mut names, mut numbers) = (HashSet::new(), HashSet::from([0]));
    for kind in TriggerKind::all() {
        let profile = kind.profile();
        assert!(names.insert(profile.name), "{kind} occurs twice");
        assert!(numbers.insert(profile.origin_number), "{kind} has another kind's number");
        assert_eq!(kind.default_name().unwrap().as_str(), profile.name);
        assert_eq!(profile.name.parse::<TriggerKind>().unwrap(), kind);
        assert!(profile.description.ends_with('.'), "{kind}");
        let settable: HashSet<_> = profile.fields.iter().map(|field| field.name).collect();
        assert_eq!(settable.len(), profile.fields.len(), "{kind} has a field twice");
        for reserved in ["type", "name", "enabled", "format"] {
            assert!(!settable.contains(reserved), "{kind} has a field `{reserved}`");
        }
    }
    let error = "tmer".parse::<TriggerKind>().unwrap_err();
    assert_eq!(error.rule(), "timer, http or redis");
}

/// What is stored stays readable: these texts are never changed, only added to.
#[test]
fn stored_settings_are_read_and_written_as_ever() {
    for (kind, stored) in [
        (TimerTrigger::KIND, json!({"cron": "*/5 * * * *", "timezone": null, "argument": "text"})),
        (
            HttpTrigger::KIND,
            json!({"path": "/a/{b}", "methods": ["GET"], "auth": "key", "key": "k1"}),
        ),
        (HttpTrigger::KIND, json!({"path": "/", "methods": [], "auth": "none", "key": null})),
        (RedisTrigger::KIND, json!({"url": "redis://localhost", "stream": "s", "batch": 10})),
    ] {
        let spec = kind.decode(fields(stored.clone())).unwrap();
        assert_eq!(spec.kind(), kind);
        assert_eq!(Value::Object(spec.to_fields().unwrap()), stored);
    }
}

#[test]
fn settings_are_equal_only_within_a_kind() {
    let timer = TriggerSpec::new(TimerTrigger { cron: "* * * * *".into(), ..Default::default() });
    assert_eq!(timer, timer.clone());
    assert_eq!(timer, TriggerSpec::new(timer.get::<TimerTrigger>().unwrap().clone()));
    assert_ne!(timer, TriggerSpec::new(TimerTrigger::default()));
    assert_ne!(TriggerSpec::new(HttpTrigger::default()), TriggerSpec::new(TimerTrigger::default()));
    assert_eq!(timer.get::<HttpTrigger>(), None);
}

#[test]
fn users_settings_have_the_fields_of_their_kind() {
    let read = TimerTrigger::KIND.read(fields(json!({"cron": "* * * * *", "timezone": null})));
    let expected = TimerTrigger { cron: "* * * * *".into(), ..Default::default() };
    assert_eq!(read.unwrap(), TriggerSpec::new(expected));
    let read = RedisTrigger::KIND.read(fields(json!({"url": "redis://h", "stream": "s"})));
    let expected = RedisTrigger { url: Secret::new("redis://h"), stream: "s".into(), batch: 10 };
    assert_eq!(read.unwrap(), TriggerSpec::new(expected));
    for (kind, settings, message) in [
        (TimerTrigger::KIND, json!({}), "a trigger of type `timer` needs `cron`"),
        (TimerTrigger::KIND, json!({"cron": null}), "a trigger of type `timer` needs `cron`"),
        (TimerTrigger::KIND, json!({"cron": 5}), "`cron`: expected a string"),
        (
            TimerTrigger::KIND,
            json!({"cron": "", "path": "/"}),
            "a trigger of type `timer` has no `path`: it has `cron`, `timezone`, `argument`",
        ),
        (
            HttpTrigger::KIND,
            json!({"path": "/", "key": "mine"}),
            "a trigger of type `http` has no `key`: it has `path`, `methods`, `auth`",
        ),
        (
            HttpTrigger::KIND,
            json!({"path": "/", "methods": ["GET", 1]}),
            "`methods`: expected a list of strings",
        ),
        (
            HttpTrigger::KIND,
            json!({"path": "/", "auth": "some"}),
            "`auth`: expected `none` or `key`",
        ),
        (
            RedisTrigger::KIND,
            json!({"url": "redis://h", "stream": "s", "batch": -1}),
            "`batch`: expected a whole number from 0 to 4294967295",
        ),
    ] {
        assert_eq!(kind.read(fields(settings)).unwrap_err().to_string(), message);
    }
}
