//! Routes by the segments of their paths: a lookup visits what shares the path's beginning, however
//! many routes there are.

use std::collections::HashMap;
use std::sync::Arc;

use super::pattern::Segment;
use super::route::Route;

/// What may follow a path's beginning.
#[derive(Debug, Default)]
pub(super) struct Tree {
    literals: HashMap<Box<str>, Self>,
    name: Option<Box<Self>>,
    /// Of the path that ends here, in order of their ids.
    routes: Vec<Arc<Route>>,
}

impl Tree {
    /// The routes must come in order of their ids.
    pub(super) fn new<'a>(routes: impl IntoIterator<Item = &'a Arc<Route>>) -> Self {
        let mut root = Self::default();
        for route in routes {
            let mut node = &mut root;
            for segment in &route.pattern.segments {
                node = match segment {
                    Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                    Segment::Name(_) => node.name.get_or_insert_default(),
                };
            }
            node.routes.push(Arc::clone(route));
        }
        root
    }

    /// Of the paths that fit, the routes of the one of the best rank; empty if none fits.
    pub(super) fn best(&self, path: &[String]) -> &[Arc<Route>] {
        let Some((first, rest)) = path.split_first() else { return &self.routes };
        let literal = self.literals.get(first.as_str()).map(|node| node.best(rest));
        let named = self.name.as_ref().filter(|_| !first.is_empty()).map(|node| node.best(rest));
        match (literal.unwrap_or_default(), named.unwrap_or_default()) {
            (routes, []) | ([], routes) => routes,
            (literal @ [a, ..], named @ [b, ..]) => {
                if a.rank <= b.rank {
                    literal
                } else {
                    named
                }
            }
        }
    }
}
