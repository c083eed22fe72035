//! Which HTTP trigger a request is for: pure. The table is compiled when triggers change and read
//! by every request.

use std::collections::HashSet;
use std::sync::Arc;

use hanshu_core::{
    ChangedTriggers, HttpAuth, HttpTrigger, Secret, Trigger, TriggerConfig as _, TriggerId,
};
use percent_encoding::percent_decode_str;
use subtle::ConstantTimeEq;
use tracing::warn;

use super::path_pattern::PathPattern;
use super::path_tree::PathTree;

/// The routes of all enabled HTTP triggers. Immutable.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// In order of their ids.
    routes: Vec<Arc<HttpRoute>>,
    tree: PathTree<Arc<HttpRoute>>,
}

/// One HTTP trigger, compiled.
#[derive(Debug)]
pub struct HttpRoute {
    /// The trigger's id.
    pub id: TriggerId,
    /// The path as configured, such as `/hello/{name}`.
    pub path: Box<str>,
    /// Upper case; empty means any.
    pub methods: Vec<String>,
    /// Which clients may call it.
    pub auth: HttpAuth,
    /// The key, where `auth` requires one.
    pub key: Option<Secret>,
    pattern: PathPattern,
}

/// What was found for a request.
#[derive(Clone, Debug)]
pub enum RouteLookup {
    /// The trigger that matches.
    Found(RouteMatch),
    /// Triggers have the path, none has the method: 405, with these in `Allow`.
    MethodNotAllowed(Vec<String>),
    /// No trigger has the path: 404.
    NotFound,
    /// The path does not decode to UTF-8: 400.
    BadPath,
}

/// A trigger, with the parameters in the request's path.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// The trigger's route.
    pub route: Arc<HttpRoute>,
    /// The values of the `{name}` segments, percent-decoded, in order.
    pub parameters: Vec<(Box<str>, String)>,
}

impl RouteTable {
    /// Compiles the enabled HTTP triggers; other triggers are left out.
    pub fn compile(triggers: &[Trigger]) -> Self {
        Self::sorted(enabled(triggers).collect())
    }

    /// The table after the triggers of some functions have changed; `None` if no route changed.
    pub(crate) fn with(&self, changed: &[ChangedTriggers<'_>]) -> Option<Self> {
        let is_http = |trigger: &Trigger| trigger.spec.kind() == HttpTrigger::KIND;
        let before = changed.iter().flat_map(|each| each.before).filter(|each| is_http(each));
        let gone: HashSet<_> = before.map(|trigger| &trigger.id).collect();
        let new: Vec<_> = changed.iter().flat_map(|each| enabled(each.after)).collect();
        if gone.is_empty() && new.is_empty() {
            return None;
        }
        let kept = self.routes.iter().filter(|route| !gone.contains(&route.id)).cloned();
        Some(Self::sorted(kept.chain(new).collect()))
    }

    fn sorted(mut routes: Vec<Arc<HttpRoute>>) -> Self {
        routes.sort_by(|a, b| a.id.cmp(&b.id));
        let mut tree = PathTree::default();
        for route in &routes {
            tree.insert(&route.pattern, route.clone());
        }
        Self { routes, tree }
    }

    /// The number of routes.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Finds the trigger for a request. Of the paths that fit, the one with the most literal
    /// bytes wins (with equally many, the one whose literals come first); then the method decides
    /// among the triggers of that path.
    pub fn find(&self, method: &str, raw_path: &str) -> RouteLookup {
        let Some(path) = segments(raw_path) else { return RouteLookup::BadPath };
        let same = self.tree.best(&path);
        if same.is_empty() {
            return RouteLookup::NotFound;
        }
        let takes = |route: &HttpRoute| route.methods.iter().any(|m| m == method);
        // A trigger that names the method comes before one that takes any.
        let any = || same.iter().find(|route| route.methods.is_empty());
        let found = same.iter().find(|route| takes(route)).or_else(any);
        match found {
            Some(route) => RouteLookup::Found(RouteMatch {
                route: route.clone(),
                parameters: route.pattern.values(&path),
            }),
            None => RouteLookup::MethodNotAllowed(allow(same)),
        }
    }

    /// The methods of the triggers of a path, for a CORS preflight; empty means any, `None` that
    /// no trigger has the path.
    pub fn methods(&self, raw_path: &str) -> Option<Vec<String>> {
        let path = segments(raw_path)?;
        let same = Some(self.tree.best(&path)).filter(|same| !same.is_empty())?;
        let any = same.iter().any(|route| route.methods.is_empty());
        Some(if any { Vec::new() } else { allow(same) })
    }
}

impl RouteMatch {
    /// Whether a caller with this `x-hanshu-key` may call. Takes the same time for every wrong key
    /// of the right length.
    pub fn admits(&self, key: Option<&[u8]>) -> bool {
        match (self.route.auth, &self.route.key, key) {
            (HttpAuth::None, ..) => true,
            (HttpAuth::Key, Some(own), Some(key)) => own.expose().as_bytes().ct_eq(key).into(),
            (HttpAuth::Key, None, _) | (HttpAuth::Key, _, None) => false,
        }
    }
}

fn enabled(triggers: &[Trigger]) -> impl Iterator<Item = Arc<HttpRoute>> {
    triggers.iter().filter(|trigger| trigger.enabled).filter_map(route).map(Arc::new)
}

fn route(trigger: &Trigger) -> Option<HttpRoute> {
    let http = trigger.spec.get::<HttpTrigger>()?;
    let pattern = PathPattern::parse(&http.path)
        .inspect_err(|error| warn!(%error, trigger = %trigger.id, "An HTTP trigger is left out"))
        .ok()?;
    Some(HttpRoute {
        id: trigger.id.clone(),
        path: pattern.text.clone(),
        methods: http.methods.clone(),
        auth: http.auth,
        key: http.key.clone(),
        pattern,
    })
}

fn allow(routes: &[Arc<HttpRoute>]) -> Vec<String> {
    let mut methods: Vec<_> =
        routes.iter().flat_map(|route| route.methods.iter().cloned()).collect();
    methods.sort();
    methods.dedup();
    methods
}

fn segments(raw_path: &str) -> Option<Vec<String>> {
    let inner = raw_path.strip_prefix('/').unwrap_or(raw_path);
    let decoded = inner.split('/').map(|text| percent_decode_str(text).decode_utf8());
    decoded.map(|text| text.ok().map(String::from)).collect()
}

#[cfg(test)]
mod tests {
    use hanshu_core::TriggerSpec;
    use proptest::prelude::*;

    use super::*;

    fn trigger(name: &str, path: &str, methods: &[&str]) -> Trigger {
        let methods = methods.iter().map(ToString::to_string).collect();
        let (path, auth) = (path.into(), HttpAuth::None);
        let spec = TriggerSpec::new(HttpTrigger { path, methods, auth, key: None });
        let function = hanshu_core::FunctionId {
            namespace: hanshu_core::Namespace::default(),
            name: "hello".parse().unwrap(),
        };
        let id = TriggerId { function, name: name.parse().unwrap() };
        Trigger { id, spec, enabled: true }
    }

    fn table() -> RouteTable {
        let mut off = trigger("off", "/off", &[]);
        off.enabled = false;
        RouteTable::compile(&[
            trigger("root", "/", &[]),
            trigger("name", "/hello/{name}", &["GET", "POST"]),
            trigger("other", "/hello/{who}", &["PUT"]),
            trigger("literal", "/hello/world", &["GET"]),
            trigger("left", "/ab/{x}", &[]),
            trigger("right", "/{x}/cd", &[]),
            trigger("slash", "/dir/", &[]),
            off,
        ])
    }

    #[test]
    fn a_table_that_was_changed_is_as_one_made_anew() {
        let (get, put) = (trigger("a", "/a/{x}", &["GET"]), trigger("b", "/a/long", &["PUT"]));
        let off = Trigger { enabled: false, ..put.clone() };
        let before = [get.clone(), put.clone()];
        for after in [vec![], vec![put.clone()], vec![get.clone(), off], vec![put, get]] {
            let changed = [ChangedTriggers { before: &before, after: &after }];
            let table = RouteTable::compile(&before).with(&changed).unwrap();
            let ids = |table: &RouteTable| {
                table.routes.iter().map(|route| route.id.clone()).collect::<Vec<_>>()
            };
            assert_eq!(ids(&table), ids(&RouteTable::compile(&after)));
        }
    }

    fn check(method: &str, path: &str, expected: &str) {
        let found = match table().find(method, path) {
            RouteLookup::Found(RouteMatch { route, parameters }) => {
                let values: Vec<_> = parameters.iter().map(|(k, v)| format!(" {k}={v}")).collect();
                format!("{}{}", route.id.name, values.concat())
            }
            RouteLookup::MethodNotAllowed(allow) => format!("405 {}", allow.join(",")),
            RouteLookup::NotFound => "404".into(),
            RouteLookup::BadPath => "400".into(),
        };
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn the_longest_literal_path_wins() {
        check("GET", "/", "root");
        check("GET", "/hello/world", "literal");
        check("GET", "/hello/you", "name name=you");
        check("PUT", "/hello/you", "other who=you");
        check("GET", "/ab/cd", "left x=cd");
        check("GET", "/zz/cd", "right x=zz");
        check("GET", "/dir/", "slash");
    }

    #[test]
    fn names_are_percent_decoded_after_the_path_is_split() {
        check("GET", "/hello/%E4%BD%A0%20%2F", "name name=你 /");
        check("GET", "/h%65llo/world", "literal");
        check("GET", "/hello/%ff", "400");
        check("GET", "/hello/100%", "name name=100%");
    }

    #[test]
    fn an_unknown_path_and_an_unknown_method_are_told_apart() {
        check("GET", "/hello", "404");
        check("GET", "/hello/", "404");
        check("GET", "/hello/a/b", "404");
        check("GET", "/dir", "404");
        check("GET", "/off", "404");
        check("DELETE", "/hello/you", "405 GET,POST,PUT");
        check("POST", "/hello/world", "405 GET");
    }

    #[test]
    fn a_preflight_learns_the_methods_of_a_path() {
        assert_eq!(table().methods("/hello/you").unwrap(), ["GET", "POST", "PUT"]);
        assert_eq!(table().methods("/ab/x").unwrap(), [""; 0]);
        assert_eq!(table().methods("/nothing"), None);
    }

    #[test]
    fn only_the_triggers_own_key_admits() {
        let admits = |auth, own: Option<&str>, key: Option<&str>| {
            let mut trigger = trigger("t", "/t", &[]);
            let own = own.map(Secret::new);
            let (path, methods) = ("/t".into(), vec![]);
            trigger.spec = TriggerSpec::new(HttpTrigger { path, methods, auth, key: own });
            match RouteTable::compile(&[trigger]).find("GET", "/t") {
                RouteLookup::Found(found) => found.admits(key.map(str::as_bytes)),
                other => panic!("{other:?}"),
            }
        };
        assert!(admits(HttpAuth::None, Some("k1"), None));
        assert!(admits(HttpAuth::Key, Some("k1"), Some("k1")));
        for key in [None, Some("k2"), Some(""), Some("k11")] {
            assert!(!admits(HttpAuth::Key, Some("k1"), key), "{key:?}");
        }
        assert!(!admits(HttpAuth::Key, None, Some("")));
    }

    #[test]
    fn a_path_follows_its_grammar() {
        for good in ["/", "/a", "/a/", "/{a}/{b}", "/a.b-c_d~e!$&'()*+,;=:@"] {
            assert!(PathPattern::parse(good).is_ok(), "{good}");
        }
        let (long, deep) = (format!("/{}", "a".repeat(1024)), "/a".repeat(33));
        let bad = [
            "", "a", "//", "/a//b", "/{}", "/{1}", "/{a-b}", "/{a}/{a}", "/{a", "/a{b}", "/a b",
            "/a%20", "/é", "/a?b", "/a#b", "/../a", "/./a", &long, &deep,
        ];
        for bad in bad {
            let message = PathPattern::parse(bad).unwrap_err().to_string();
            assert!(message.contains("`path`"), "{bad}: {message}");
        }
    }

    proptest! {
        /// What a name is given comes out of the encoded path as it was.
        #[test]
        fn a_value_survives_the_path(value in "\\PC{1,20}") {
            let encoded = percent_encoding::utf8_percent_encode(
                &value, percent_encoding::NON_ALPHANUMERIC,
            );
            let RouteLookup::Found(found) = table().find("PUT", &format!("/hello/{encoded}")) else {
                return Err(TestCaseError::fail("not found"));
            };
            prop_assert_eq!(&found.parameters[0].1, &value);
        }

        /// The tree finds what a look at every route finds.
        #[test]
        fn the_best_of_all_that_fit_is_found(
            patterns in proptest::collection::vec("(/(a|bb|\\{x\\})){1}(/(a|bb|\\{y\\})){0,2}/?", 0..12),
            path in "(/(a|bb|c)){1,3}/?",
        ) {
            let named = |(number, path): (usize, &String)| trigger(&format!("t{number}"), path, &[]);
            let table = RouteTable::compile(&patterns.iter().enumerate().map(named).collect::<Vec<_>>());
            let fits = |route: &&Arc<HttpRoute>| route.pattern.fits(&segments(&path).unwrap());
            let best = table.routes.iter().filter(fits).min_by_key(|route| route.pattern.rank());
            let found = match table.find("GET", &path) {
                RouteLookup::Found(found) => Some(found.route.id.clone()),
                _ => None,
            };
            prop_assert_eq!(found, best.map(|route| route.id.clone()));
        }

        /// No path makes it panic.
        #[test]
        fn any_path_is_answered(path in "/\\PC{0,40}") {
            let _ = table().find("GET", &path);
        }
    }
}
