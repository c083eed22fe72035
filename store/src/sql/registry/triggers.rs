//! Triggers, and which trigger owns each HTTP route.

use std::collections::BTreeMap;

use hanshu_core::ports::StoreError;
use hanshu_core::{FunctionId, HttpTrigger, Trigger, TriggerId, TriggerName, TriggerSpec};
use sqlx::{AnyConnection, query, query_as};

use crate::sql::error::DatabaseError;
use crate::sql::row::{RowContext, to_json};
use crate::stored::StoredTriggerSpec;

const OF_FUNCTION: &str = "
SELECT name, spec, enabled FROM triggers WHERE namespace = $1 AND function = $2";

const UPSERT: &str = "
INSERT INTO triggers (namespace, function, name, spec, enabled)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (namespace, function, name)
DO UPDATE SET spec = excluded.spec, enabled = excluded.enabled";

const DELETE: &str = "
DELETE FROM triggers WHERE namespace = $1 AND function = $2 AND name = $3";

const DELETE_ALL: &str = "
DELETE FROM triggers WHERE namespace = $1 AND function = $2";

const ENABLE: &str = "
UPDATE triggers SET enabled = $4 WHERE namespace = $1 AND function = $2 AND name = $3";

const DELETE_ROUTES: &str = "
DELETE FROM routes WHERE namespace = $1 AND function = $2";

const INSERT_ROUTE: &str = "
INSERT INTO routes (shape, method, namespace, function, name) VALUES ($1, $2, $3, $4, $5)";

const ROUTE_OWNER: &str = "
SELECT namespace, function, name, method FROM routes
WHERE shape = $1 AND (method = $2 OR method = '*' OR $2 = '*') LIMIT 1";

pub(super) const STATEMENTS: &[&str] =
    &[OF_FUNCTION, UPSERT, DELETE, DELETE_ALL, ENABLE, DELETE_ROUTES, INSERT_ROUTE, ROUTE_OWNER];

/// Stands for every method.
const ANY_METHOD: &str = "*";

row! {
    /// A function's trigger.
    #[derive(Debug)]
    pub(super) struct TriggerRow {
        name: String,
        spec: String,
        enabled: i64,
    }
}

row! {
    /// The trigger that owns a route, and the method it owns it for.
    #[derive(Debug)]
    struct RouteOwnerRow {
        namespace: String,
        function: String,
        name: String,
        method: String,
    }
}

/// How replacing a function's triggers changed them.
#[derive(Debug)]
pub(super) struct TriggerDiff {
    /// As they now are, by name.
    pub(super) triggers: Vec<Trigger>,
    /// Gone from the list.
    pub(super) removed: Vec<TriggerId>,
    /// Whether anything is different.
    pub(super) changed: bool,
}

/// Makes the function's triggers exactly those given.
pub(super) async fn replace(
    tx: &mut AnyConnection,
    function: &FunctionId,
    wanted: &[Trigger],
) -> Result<TriggerDiff, StoreError> {
    let mut before = of_function(tx, function).await?;
    let mut diff = TriggerDiff { triggers: Vec::new(), removed: Vec::new(), changed: false };
    for trigger in wanted {
        let old = before.remove(&trigger.id.name);
        let new = keeping_key(trigger, old.as_ref());
        if old.as_ref() != Some(&new) {
            diff.changed = true;
            upsert(tx, &new).await?;
        }
        diff.triggers.push(new);
    }
    for (_, gone) in before {
        delete(tx, &gone.id).await?;
        diff.changed = true;
        diff.removed.push(gone.id);
    }
    diff.triggers.sort_by(|a, b| a.id.name.cmp(&b.id.name));
    if diff.changed {
        take_routes(tx, function, &diff.triggers).await?;
    }
    Ok(diff)
}

/// Removes all triggers and routes of a function.
pub(super) async fn delete_all(
    tx: &mut AnyConnection,
    function: &FunctionId,
) -> Result<(), DatabaseError> {
    for statement in [DELETE_ROUTES, DELETE_ALL] {
        query(statement)
            .bind(function.namespace.as_str())
            .bind(function.name.as_str())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Switches a trigger. Whether there is one.
pub(super) async fn enable(
    tx: &mut AnyConnection,
    id: &TriggerId,
    enabled: bool,
) -> Result<bool, DatabaseError> {
    let done = query(ENABLE)
        .bind(id.function.namespace.as_str())
        .bind(id.function.name.as_str())
        .bind(id.name.as_str())
        .bind(i64::from(enabled))
        .execute(tx)
        .await?;
    Ok(done.rows_affected() != 0)
}

impl TriggerRow {
    pub(super) fn decode(&self, function: &FunctionId) -> Result<Trigger, DatabaseError> {
        let key = format!("{function}/{}", self.name);
        let row = RowContext::new("triggers", &key);
        let id = TriggerId { function: function.clone(), name: row.parse(&self.name)? };
        let stored: StoredTriggerSpec = row.json(&self.spec)?;
        let spec = TriggerSpec::try_from(stored).map_err(|error| row.bad(error))?;
        Ok(Trigger { id, spec, enabled: self.enabled != 0 })
    }
}

/// The function's triggers, by name.
pub(super) async fn of_function(
    tx: &mut AnyConnection,
    function: &FunctionId,
) -> Result<BTreeMap<TriggerName, Trigger>, DatabaseError> {
    let rows: Vec<TriggerRow> = query_as(OF_FUNCTION)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .fetch_all(tx)
        .await?;
    let decoded = rows.iter().map(|row| {
        let trigger = row.decode(function)?;
        Ok((trigger.id.name.clone(), trigger))
    });
    decoded.collect()
}

/// The trigger as it will be: an HTTP trigger that requires a key keeps the one that it has.
fn keeping_key(wanted: &Trigger, old: Option<&Trigger>) -> Trigger {
    let mut new = wanted.clone();
    if let Some(http) = wanted.spec.get::<HttpTrigger>() {
        let had = old.and_then(|old| old.spec.get::<HttpTrigger>()?.key.clone());
        new.spec = TriggerSpec::new(http.with_key(|| had.or_else(|| http.key.clone())));
    }
    new
}

async fn upsert(tx: &mut AnyConnection, trigger: &Trigger) -> Result<(), DatabaseError> {
    let spec = StoredTriggerSpec::try_from(&trigger.spec)
        .map_err(|error| RowContext::new("triggers", &trigger.id.to_string()).bad(error))?;
    query(UPSERT)
        .bind(trigger.id.function.namespace.as_str())
        .bind(trigger.id.function.name.as_str())
        .bind(trigger.id.name.as_str())
        .bind(to_json("triggers", &spec)?)
        .bind(i64::from(trigger.enabled))
        .execute(tx)
        .await?;
    Ok(())
}

async fn delete(tx: &mut AnyConnection, id: &TriggerId) -> Result<(), DatabaseError> {
    query(DELETE)
        .bind(id.function.namespace.as_str())
        .bind(id.function.name.as_str())
        .bind(id.name.as_str())
        .execute(tx)
        .await?;
    Ok(())
}

/// Gives the function's HTTP triggers their routes. The lock on the counter keeps two deploys
/// from taking the same route at once.
async fn take_routes(
    tx: &mut AnyConnection,
    function: &FunctionId,
    triggers: &[Trigger],
) -> Result<(), StoreError> {
    query(DELETE_ROUTES)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .execute(&mut *tx)
        .await
        .map_err(DatabaseError::from)?;
    for trigger in triggers {
        let Some(http) = trigger.spec.get::<HttpTrigger>() else { continue };
        let any = [ANY_METHOD.to_owned()];
        let methods = if http.methods.is_empty() { &any[..] } else { &http.methods };
        for method in methods {
            take_route(tx, &trigger.id, &http.path, method).await?;
        }
    }
    Ok(())
}

async fn take_route(
    tx: &mut AnyConnection,
    id: &TriggerId,
    path: &str,
    method: &str,
) -> Result<(), StoreError> {
    let shape = shape(path);
    let owner: Option<RouteOwnerRow> = query_as(ROUTE_OWNER)
        .bind(&shape)
        .bind(method)
        .fetch_optional(&mut *tx)
        .await
        .map_err(DatabaseError::from)?;
    if let Some(RouteOwnerRow { namespace, function, name, method }) = owner {
        let shown = if method == ANY_METHOD { "any method" } else { &method };
        return Err(StoreError::Conflict(format!(
            "the HTTP route `{path}` ({shown}) belongs to trigger `{name}` of function \
             `{namespace}/{function}`: choose another path or method for `{id}`"
        )));
    }
    query(INSERT_ROUTE)
        .bind(&shape)
        .bind(method)
        .bind(id.function.namespace.as_str())
        .bind(id.function.name.as_str())
        .bind(id.name.as_str())
        .execute(tx)
        .await
        .map_err(DatabaseError::from)?;
    Ok(())
}

/// The path with its variables' names taken out: two paths of one shape match the same requests.
fn shape(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        if segment.starts_with('{') && segment.ends_with('}') { "{}" } else { segment }
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::shape;

    #[test]
    fn paths_that_differ_in_names_of_variables_only_have_one_shape() {
        assert_eq!(shape("/hello/{name}"), shape("/hello/{other}"));
        assert_ne!(shape("/hello/{name}"), shape("/hello/name"));
        assert_ne!(shape("/hello"), shape("/hello/{name}"));
        assert_eq!(shape("/"), "/");
    }
}
