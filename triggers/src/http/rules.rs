//! The rules of HTTP triggers.

use hanshu_core::{HttpAuth, HttpTrigger};
use serde_json::{Map, json};

use super::path_pattern::PathPattern;
use crate::trigger_error::TriggerError;
use crate::trigger_rules::{TriggerRules, TriggerView, ViewContext};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

impl TriggerRules for HttpTrigger {
    fn check(&self) -> Result<(), TriggerError> {
        PathPattern::parse(&self.path)?;
        match self.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            None => Ok(()),
            Some(method) => {
                let rule =
                    "GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS; leave `methods` out for any";
                Err(TriggerError::field("methods", method, rule))
            }
        }
    }

    /// With its key: a client that may see a trigger may call it.
    fn view(&self, context: &ViewContext<'_>) -> TriggerView {
        let url = format!("{}{}", context.http_url.trim_end_matches('/'), self.path);
        let methods =
            if self.methods.is_empty() { "ANY".to_owned() } else { self.methods.join(",") };
        let summary = format!("{methods} {url}");
        let mut fields = Map::from_iter([
            ("url".to_owned(), json!(url)),
            ("path".to_owned(), json!(self.path)),
            ("methods".to_owned(), json!(self.methods)),
            ("auth".to_owned(), json!(self.auth)),
        ]);
        if let (HttpAuth::Key, Some(key)) = (self.auth, &self.key) {
            fields.insert("key".to_owned(), json!(key.expose()));
        }
        TriggerView { summary, fields, next_ticks: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use hanshu_core::{Secret, Timestamp, TriggerSpec};

    use super::*;
    use crate::trigger_kinds::{check_trigger, view_trigger};

    fn http(path: &str, methods: &[&str]) -> TriggerSpec {
        let methods = methods.iter().map(ToString::to_string).collect();
        TriggerSpec::new(HttpTrigger { path: path.into(), methods, ..HttpTrigger::default() })
    }

    #[test]
    fn good_triggers_pass_and_bad_ones_are_refused_with_field_value_and_rule() {
        for good in [http("/hello/{name}", &["GET", "POST"]), http("/", &[])] {
            assert_eq!(check_trigger(&good), Ok(()), "{good:?}");
        }
        for (bad, words) in [
            (http("hello", &[]), "`path` is `hello`: expected"),
            (http("/hello", &["get"]), "`methods` is `get`: expected"),
        ] {
            let message = check_trigger(&bad).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_view_says_where_to_call_and_with_which_key() {
        let context = ViewContext {
            now: Timestamp::UNIX_EPOCH,
            timezone: "UTC",
            http_url: "http://host:1/",
            enabled: true,
        };
        let trigger = HttpTrigger {
            path: "/a".into(),
            methods: vec!["GET".into(), "PUT".into()],
            auth: HttpAuth::Key,
            key: Some(Secret::new("k1")),
        };
        let view = view_trigger(&TriggerSpec::new(trigger.clone()), &context);
        assert_eq!(view.summary, "GET,PUT http://host:1/a");
        let expected = json!({
            "url": "http://host:1/a", "path": "/a", "methods": ["GET", "PUT"], "auth": "key",
            "key": "k1",
        });
        assert_eq!(json!(view.fields), expected);
        let open = HttpTrigger { auth: HttpAuth::None, methods: vec![], ..trigger };
        let view = view_trigger(&TriggerSpec::new(open), &context);
        assert_eq!((view.summary.as_str(), view.fields.get("key")), ("ANY http://host:1/a", None));
    }
}
