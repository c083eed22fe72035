//! A kind of trigger: the row that describes it, and settings of any kind.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::field::{TriggerField, TriggerFieldError, check_fields};

/// One row of the table of kinds: what every part of the platform has to know of a kind. What only
/// one crate has to know is in a row of that crate.
#[derive(Debug)]
pub struct TriggerProfile {
    /// `type` in `hanshu.toml`, in the API and in what is stored, `TRIGGER_SRC` of the function,
    /// and the name of a trigger that was given none.
    pub name: &'static str,
    /// The origin's number in the protocol of sandboxes; 0 is a direct call.
    pub origin_number: u8,
    /// Whether it reads batches of a stream: such a trigger has no queue of the platform.
    pub is_stream: bool,
    /// One sentence for the description of the API.
    pub description: &'static str,
    /// The fields of its settings that users write.
    pub fields: &'static [TriggerField],
    /// Decodes its settings.
    pub decode: fn(Map<String, Value>) -> serde_json::Result<TriggerSpec>,
}

/// A kind of trigger: a reference to its row.
#[derive(Clone, Copy)]
pub struct TriggerKind(&'static TriggerProfile);

/// The settings of one kind of trigger. What they serialise to is what is stored, so that it must
/// stay readable: a new field needs a default.
pub trait TriggerConfig:
    Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The kind that has these settings.
    const KIND: TriggerKind;
}

/// The settings of a trigger of any kind. A clone is cheap.
#[derive(Clone)]
pub struct TriggerSpec(Arc<dyn ErasedConfig>);

/// A [`TriggerConfig`] of a kind that is not known to the compiler.
trait ErasedConfig: fmt::Debug + Send + Sync {
    fn kind(&self) -> TriggerKind;
    fn as_any(&self) -> &dyn Any;
    fn equals(&self, other: &dyn ErasedConfig) -> bool;
    fn to_value(&self) -> serde_json::Result<Value>;
}

impl<T: TriggerConfig> ErasedConfig for T {
    fn kind(&self) -> TriggerKind {
        T::KIND
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn equals(&self, other: &dyn ErasedConfig) -> bool {
        other.as_any().downcast_ref::<T>() == Some(self)
    }

    fn to_value(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
}

impl TriggerSpec {
    /// Settings of the kind of `T`.
    pub fn new<T: TriggerConfig>(config: T) -> Self {
        Self(Arc::new(config))
    }

    /// The kind of these settings.
    pub fn kind(&self) -> TriggerKind {
        self.0.kind()
    }

    /// The settings, if they are of the kind of `T`.
    pub fn get<T: TriggerConfig>(&self) -> Option<&T> {
        self.0.as_any().downcast_ref()
    }

    /// The settings as they are stored, without the kind.
    ///
    /// # Errors
    /// They are not a JSON object.
    pub fn to_fields(&self) -> serde_json::Result<Map<String, Value>> {
        serde_json::from_value(self.0.to_value()?)
    }
}

impl PartialEq for TriggerSpec {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.equals(&*other.0)
    }
}

impl Eq for TriggerSpec {}

impl fmt::Debug for TriggerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TriggerKind {
    /// The kind that a row describes. Of the kinds in the table there are constants.
    pub const fn of(profile: &'static TriggerProfile) -> Self {
        Self(profile)
    }

    /// The row that describes this kind.
    pub fn profile(self) -> &'static TriggerProfile {
        self.0
    }

    /// `type` in `hanshu.toml` and in the API.
    pub fn as_str(self) -> &'static str {
        self.0.name
    }

    /// Settings of this kind, as they are stored.
    ///
    /// # Errors
    /// They cannot be decoded.
    pub fn decode(self, fields: Map<String, Value>) -> serde_json::Result<TriggerSpec> {
        (self.0.decode)(fields)
    }

    /// Whether settings, as users write them, have the fields of this kind.
    ///
    /// # Errors
    /// [`TriggerFieldError`] names the field.
    pub fn check_fields(self, fields: &Map<String, Value>) -> Result<(), TriggerFieldError> {
        check_fields(self.0.name, self.0.fields, fields)
    }

    /// Settings of this kind, as users write them.
    ///
    /// # Errors
    /// [`TriggerFieldError`] names the field.
    pub fn read(self, mut fields: Map<String, Value>) -> Result<TriggerSpec, TriggerFieldError> {
        self.check_fields(&fields)?;
        fields.retain(|_, value| !value.is_null());
        self.decode(fields).map_err(|error| TriggerFieldError::Decode(error.to_string()))
    }
}

impl PartialEq for TriggerKind {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for TriggerKind {}

impl Hash for TriggerKind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for TriggerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Display for TriggerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.name)
    }
}

/// Decodes the settings of `T`: for [`TriggerProfile::decode`].
pub fn decode_config<T: TriggerConfig>(
    fields: Map<String, Value>,
) -> serde_json::Result<TriggerSpec> {
    serde_json::from_value(Value::Object(fields)).map(|config: T| TriggerSpec::new(config))
}
