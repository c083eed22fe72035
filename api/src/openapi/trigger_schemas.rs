//! The schemas of triggers, made from the rows of the kinds in core.

use std::borrow::Cow;

use hanshu_core::{FieldValue, TriggerKind};
use serde_json::json;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{
    ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, Type,
};
use utoipa::{PartialSchema, ToSchema};

use crate::wire::{TriggerDetail, TriggerSettings, TriggerTick};

impl PartialSchema for TriggerSettings {
    fn schema() -> RefOr<Schema> {
        let kinds = TriggerKind::all().map(settings_of);
        let description = "A trigger as `hanshu.toml` says it. `name` may be left out where a type \
                           occurs once; it is then the type.";
        let one_of = kinds.fold(OneOfBuilder::new(), |all, kind| all.item(kind));
        Schema::OneOf(one_of.description(Some(description)).build()).into()
    }
}

impl ToSchema for TriggerSettings {
    fn name() -> Cow<'static, str> {
        "TriggerSettings".into()
    }
}

impl PartialSchema for TriggerDetail {
    /// One object with the fields of all types: those that a type does not have are left out.
    fn schema() -> RefOr<Schema> {
        let ticks = ArrayBuilder::new()
            .items(Ref::from_schema_name("TriggerTick"))
            .description(Some("The next three ticks of a timer that is switched on."));
        let mut object = ObjectBuilder::new()
            .description(Some(
                "A trigger as it is. Fields that its type does not have are left out.",
            ))
            .property("name", text("Its name within the function."))
            .required("name")
            .property("type", any_kind())
            .required("type")
            .property("enabled", boolean("Whether it is switched on."))
            .required("enabled")
            .property("summary", text("What it does, in a few words."))
            .required("summary")
            .property("nextTicks", ticks)
            .property(
                "healthProblem",
                text("What keeps it from working now, such as a stream that cannot be read."),
            );
        for kind in TriggerKind::all() {
            for field in kind.profile().fields {
                let description = format!("Type `{kind}`: {}", field.description);
                object = object.property(field.name, value(field.value, &description));
            }
        }
        let url = "Type `http`: where to call it. Type `redis`: where the stream is, a password \
                   shown as `***`.";
        let key = "Type `http` with `auth` `key`: what to send as `x-hanshu-key`.";
        object.property("url", text(url)).property("key", text(key)).build().into()
    }
}

impl ToSchema for TriggerDetail {
    fn name() -> Cow<'static, str> {
        "TriggerDetail".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((TriggerTick::name().into_owned(), TriggerTick::schema()));
    }
}

fn settings_of(kind: TriggerKind) -> Object {
    let one = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([kind.as_str()]));
    let mut object = ObjectBuilder::new()
        .description(Some(kind.profile().description))
        .property("type", one)
        .required("type")
        .property("name", text("Its name within the function."))
        .property("enabled", boolean("Whether it is switched on; `true` if absent."))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    for field in kind.profile().fields {
        object = object.property(field.name, value(field.value, field.description));
        if field.required {
            object = object.required(field.name);
        }
    }
    object.build()
}

fn any_kind() -> Object {
    let names = TriggerKind::all().map(TriggerKind::as_str);
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).build()
}

fn text(description: &str) -> Object {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description)).build()
}

fn boolean(description: &str) -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).description(Some(description)).build()
}

fn value(value: FieldValue, description: &str) -> Schema {
    match value {
        FieldValue::Text | FieldValue::Address => text(description).into(),
        FieldValue::TextList => ArrayBuilder::new()
            .items(ObjectBuilder::new().schema_type(Type::String))
            .description(Some(description))
            .build()
            .into(),
        FieldValue::Number => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .description(Some(description))
            .build()
            .into(),
        FieldValue::Choice(choices) => {
            let choices = choices.iter().map(|choice| json!(choice));
            let object = ObjectBuilder::new().schema_type(Type::String);
            object.enum_values(Some(choices)).description(Some(description)).build().into()
        }
    }
}
