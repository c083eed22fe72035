//! A trigger of a manifest. Which fields it may have is in the row of its kind in core.

use std::ops::Range;

use hanshu_api::wire::TriggerSettings;
use hanshu_core::{FieldValue, TriggerKind};
use serde_json::{Map, Value};
use toml::Spanned;

use super::ParseContext;
use super::file::TriggerTable;
use crate::error::Error;

/// Reads a trigger; what is wrong is named with its line.
pub(super) fn trigger(
    table: TriggerTable,
    context: &ParseContext<'_>,
) -> Result<TriggerSettings, Error> {
    let whole = table.span();
    let mut entries = table.into_inner();
    let at = |span: Range<usize>, message: &str| context.source.at(span, message);
    let kind = entries.remove("type").ok_or_else(|| at(whole, "a trigger needs `type`"))?;
    let kind_span = kind.span();
    let kind: TriggerKind = text("type", kind, context)?
        .parse()
        .map_err(|error: hanshu_core::NameError| at(kind_span.clone(), &error.to_string()))?;
    let name = entries.remove("name").map(|name| text("name", name, context)).transpose()?;
    let enabled = match entries.remove("enabled") {
        None => None,
        Some(entry) => match entry.get_ref() {
            toml::Value::Boolean(enabled) => Some(*enabled),
            _ => return Err(at(entry.span(), "`enabled`: expected true or false")),
        },
    };
    let fields = fields(kind, &entries, context)?;
    kind.check_fields(&fields).map_err(|error| {
        let entry = error.field().and_then(|field| entries.get(field));
        at(entry.map_or(kind_span, Spanned::span), &error.to_string())
    })?;
    Ok(TriggerSettings { kind, name, enabled, fields })
}

/// The fields as JSON, with variables replaced in addresses.
fn fields(
    kind: TriggerKind,
    entries: &std::collections::BTreeMap<String, Spanned<toml::Value>>,
    context: &ParseContext<'_>,
) -> Result<Map<String, Value>, Error> {
    let is_address = |name: &str| {
        let fields = kind.profile().fields;
        fields.iter().any(|field| field.name == name && field.value == FieldValue::Address)
    };
    let mut fields = Map::new();
    for (name, entry) in entries {
        let value = match entry.get_ref() {
            toml::Value::String(text) if is_address(name) => {
                let text = Spanned::new(entry.span(), text.clone());
                context.expand(&text)?.into()
            }
            value => serde_json::to_value(value)
                .map_err(|error| context.source.at(entry.span(), &error.to_string()))?,
        };
        fields.insert(name.clone(), value);
    }
    Ok(fields)
}

fn text(
    field: &str,
    entry: Spanned<toml::Value>,
    context: &ParseContext<'_>,
) -> Result<String, Error> {
    let span = entry.span();
    match entry.into_inner() {
        toml::Value::String(text) => Ok(text),
        _ => Err(context.source.at(span, &format!("`{field}`: expected a string"))),
    }
}
