//! Triggers, and whose each HTTP route is.

use std::collections::BTreeMap;

use hanshu_core::ports::StoreError;
use hanshu_core::{FunctionId, HttpAuth, Trigger, TriggerId, TriggerName, TriggerSpec};
use sqlx::{AnyConnection, query, query_as};

use super::row::{RowOf, to_json};
use crate::error::Error;

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

pub(crate) const STATEMENTS: &[&str] =
    &[OF_FUNCTION, UPSERT, DELETE, DELETE_ALL, ENABLE, DELETE_ROUTES, INSERT_ROUTE, ROUTE_OWNER];

/// Any method.
const ANY: &str = "*";

/// What making a function's triggers those of a list did.
#[derive(Debug)]
pub(crate) struct Replaced {
    /// As they now are, by name.
    pub(crate) triggers: Vec<Trigger>,
    /// Gone from the list.
    pub(crate) removed: Vec<TriggerId>,
    /// Whether anything is different.
    pub(crate) changed: bool,
}

/// Makes the function's triggers exactly those given.
pub(crate) async fn replace(
    tx: &mut AnyConnection,
    function: &FunctionId,
    wanted: &[Trigger],
) -> Result<Replaced, StoreError> {
    let mut before = of_function(tx, function).await?;
    let mut replaced = Replaced { triggers: Vec::new(), removed: Vec::new(), changed: false };
    for trigger in wanted {
        let old = before.remove(&trigger.id.name);
        let new = keeping_key(trigger, old.as_ref());
        if old.as_ref() != Some(&new) {
            replaced.changed = true;
            upsert(tx, &new).await?;
        }
        replaced.triggers.push(new);
    }
    for (_, gone) in before {
        delete(tx, &gone.id).await?;
        replaced.changed = true;
        replaced.removed.push(gone.id);
    }
    replaced.triggers.sort_by(|a, b| a.id.name.cmp(&b.id.name));
    if replaced.changed {
        take_routes(tx, function, &replaced.triggers).await?;
    }
    Ok(replaced)
}

/// Removes all triggers and routes of a function.
pub(crate) async fn delete_all(tx: &mut AnyConnection, function: &FunctionId) -> Result<(), Error> {
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
pub(crate) async fn enable(
    tx: &mut AnyConnection,
    id: &TriggerId,
    enabled: bool,
) -> Result<bool, Error> {
    let done = query(ENABLE)
        .bind(id.function.namespace.as_str())
        .bind(id.function.name.as_str())
        .bind(id.name.as_str())
        .bind(i64::from(enabled))
        .execute(tx)
        .await?;
    Ok(done.rows_affected() != 0)
}

/// A row of the table to a trigger.
pub(crate) fn decode(
    function: &FunctionId,
    (name, spec, enabled): (&str, &str, i64),
) -> Result<Trigger, Error> {
    let key = format!("{function}/{name}");
    let row = RowOf::new("triggers", &key);
    let id = TriggerId { function: function.clone(), name: row.parse(name)? };
    Ok(Trigger { id, spec: row.json(spec)?, enabled: enabled != 0 })
}

/// The function's triggers, by name.
pub(crate) async fn of_function(
    tx: &mut AnyConnection,
    function: &FunctionId,
) -> Result<BTreeMap<TriggerName, Trigger>, Error> {
    let rows: Vec<(String, String, i64)> = query_as(OF_FUNCTION)
        .bind(function.namespace.as_str())
        .bind(function.name.as_str())
        .fetch_all(tx)
        .await?;
    let decoded = rows.iter().map(|(name, spec, enabled)| {
        let trigger = decode(function, (name, spec, *enabled))?;
        Ok((trigger.id.name.clone(), trigger))
    });
    decoded.collect()
}

/// The trigger as it will be: an HTTP trigger that asks for a key keeps the one it has.
fn keeping_key(wanted: &Trigger, old: Option<&Trigger>) -> Trigger {
    let mut new = wanted.clone();
    let had = match old.map(|old| &old.spec) {
        Some(TriggerSpec::Http { key, .. }) => key.clone(),
        Some(TriggerSpec::Timer { .. } | TriggerSpec::Redis { .. }) | None => None,
    };
    if let TriggerSpec::Http { auth, key, .. } = &mut new.spec {
        *key = match auth {
            HttpAuth::Key => had.or(key.take()),
            HttpAuth::None => None,
        };
    }
    new
}

async fn upsert(tx: &mut AnyConnection, trigger: &Trigger) -> Result<(), Error> {
    query(UPSERT)
        .bind(trigger.id.function.namespace.as_str())
        .bind(trigger.id.function.name.as_str())
        .bind(trigger.id.name.as_str())
        .bind(to_json("triggers", &trigger.spec)?)
        .bind(i64::from(trigger.enabled))
        .execute(tx)
        .await?;
    Ok(())
}

async fn delete(tx: &mut AnyConnection, id: &TriggerId) -> Result<(), Error> {
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
        .map_err(Error::from)?;
    for trigger in triggers {
        let TriggerSpec::Http { path, methods, .. } = &trigger.spec else { continue };
        let any = [ANY.to_owned()];
        let methods = if methods.is_empty() { &any[..] } else { methods };
        for method in methods {
            take_route(tx, &trigger.id, (path, method)).await?;
        }
    }
    Ok(())
}

async fn take_route(
    tx: &mut AnyConnection,
    id: &TriggerId,
    (path, method): (&str, &str),
) -> Result<(), StoreError> {
    let shape = shape(path);
    let owner: Option<(String, String, String, String)> = query_as(ROUTE_OWNER)
        .bind(&shape)
        .bind(method)
        .fetch_optional(&mut *tx)
        .await
        .map_err(Error::from)?;
    if let Some((namespace, function, name, theirs)) = owner {
        let shown = if theirs == ANY { "any method" } else { &theirs };
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
        .map_err(Error::from)?;
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
