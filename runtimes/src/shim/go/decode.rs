//! Reads `encoding/gob`: any value, by the type definitions that precede it.
//!
//! The sender is the function and not trusted: every length is checked against the bytes that are
//! there, and depth and number of values are limited.

use std::cell::Cell;
use std::collections::HashMap;

use super::encode::id;

/// How deeply values may be nested.
pub(super) const DEPTH_MAX: usize = 32;
/// How many values a message may have.
pub(super) const VALUES_MAX: usize = 100_000;
/// How many types may be defined on a connection.
const TYPES_MAX: usize = 1_000;

/// Why bytes are no gob; nothing more can be read from the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GobError {
    #[error("a message ends too early")]
    Short,
    #[error("a number has too many bytes")]
    Number,
    #[error("type `{0}` was not defined")]
    UndefinedType(i64),
    #[error("a type's definition makes no sense")]
    Definition,
    #[error("a struct has a field that its type does not have")]
    UnknownField,
    #[error("values are too many or too deep")]
    TooMuch,
    #[error("interface values are not understood")]
    Interface,
}

/// A value; bytes are the message's own.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum GobValue<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Bytes(&'a [u8]),
    List(Vec<Self>),
    /// Fields with their zero value are not sent.
    Struct(Vec<(&'a str, Self)>),
    /// A value that is checked, but not kept.
    Other,
}

/// A defined type.
#[derive(Clone, Debug, PartialEq, Eq)]
enum GobType {
    List {
        element: i64,
    },
    Map {
        key: i64,
        element: i64,
    },
    Struct(Vec<(String, i64)>),
    /// Encoded by the type's own code, as bytes.
    Opaque,
}

/// One decoded message.
#[derive(Debug)]
pub(super) enum GobMessage<'a> {
    /// A type's definition, used for later messages.
    Defined,
    Value(GobValue<'a>),
}

/// The types that were defined on a connection.
#[derive(Debug)]
pub(super) struct GobTypes {
    defined: HashMap<i64, GobType>,
}

impl GobTypes {
    /// The predefined types, which describe the definitions themselves.
    pub(super) fn new() -> Self {
        let structure = |fields: &[(&str, i64)]| {
            GobType::Struct(fields.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect())
        };
        let common = ("CommonType", 18);
        let own_code = structure(&[common]);
        let wire_type = structure(&[
            ("ArrayT", 17),
            ("SliceT", 19),
            ("StructT", 20),
            ("MapT", 23),
            ("GobEncoderT", 24),
            ("BinaryMarshalerT", 24),
            ("TextMarshalerT", 24),
        ]);
        let defined = [
            (id::WIRE_TYPE, wire_type),
            (17, structure(&[common, ("Elem", id::INT), ("Len", id::INT)])),
            (18, structure(&[("Name", id::STRING), ("Id", id::INT)])),
            (19, structure(&[common, ("Elem", id::INT)])),
            (20, structure(&[common, ("Field", 22)])),
            (21, structure(&[("Name", id::STRING), ("Id", id::INT)])),
            (22, GobType::List { element: 21 }),
            (23, structure(&[common, ("Key", id::INT), ("Elem", id::INT)])),
            (24, own_code),
        ];
        Self { defined: HashMap::from(defined) }
    }

    /// Reads one message, without its length.
    pub(super) fn read<'a>(&'a mut self, message: &'a [u8]) -> Result<GobMessage<'a>, GobError> {
        let mut reader = GobReader { rest: message };
        let type_id = reader.int()?;
        if type_id < 0 {
            self.define(type_id.checked_neg().ok_or(GobError::Definition)?, &mut reader)?;
            return Ok(GobMessage::Defined);
        }
        let scope = ValueDecoder { types: self, values: Cell::new(VALUES_MAX) };
        let is_struct = matches!(self.defined.get(&type_id), Some(GobType::Struct(_)));
        if !is_struct && reader.uint()? != 0 {
            return Err(GobError::UnknownField);
        }
        scope.value(type_id, &mut reader, 0).map(GobMessage::Value)
    }

    fn define(&mut self, type_id: i64, reader: &mut GobReader<'_>) -> Result<(), GobError> {
        let definition = {
            let scope = ValueDecoder { types: self, values: Cell::new(VALUES_MAX) };
            type_of(&scope.value(id::WIRE_TYPE, reader, 0)?)?
        };
        // An id must not be defined twice.
        if TYPES_MAX <= self.defined.len() || self.defined.contains_key(&type_id) {
            return Err(GobError::Definition);
        }
        self.defined.insert(type_id, definition);
        Ok(())
    }
}

/// A `wireType` as the type that it defines.
fn type_of(value: &GobValue<'_>) -> Result<GobType, GobError> {
    let id = |value: &GobValue<'_>, name: &str| {
        value.field(name).and_then(GobValue::as_int).ok_or(GobError::Definition)
    };
    if let Some(list) = value.field("ArrayT").or_else(|| value.field("SliceT")) {
        return Ok(GobType::List { element: id(list, "Elem")? });
    }
    if let Some(map) = value.field("MapT") {
        return Ok(GobType::Map { key: id(map, "Key")?, element: id(map, "Elem")? });
    }
    if let Some(structure) = value.field("StructT") {
        let fields = structure.field("Field").map(GobValue::items).unwrap_or_default();
        let fields = fields.iter().map(|field| Ok((field.text("Name"), id(field, "Id")?)));
        return Ok(GobType::Struct(fields.collect::<Result<_, _>>()?));
    }
    let own_code = ["GobEncoderT", "BinaryMarshalerT", "TextMarshalerT"];
    if own_code.iter().any(|name| value.field(name).is_some()) {
        return Ok(GobType::Opaque);
    }
    Err(GobError::Definition)
}

/// Reads the values of one message.
struct ValueDecoder<'a> {
    types: &'a GobTypes,
    /// How many more values the message may have.
    values: Cell<usize>,
}

impl<'a> ValueDecoder<'a> {
    fn value<'m: 'a>(
        &self,
        type_id: i64,
        reader: &mut GobReader<'m>,
        depth: usize,
    ) -> Result<GobValue<'a>, GobError> {
        let left = self.values.get().checked_sub(1).ok_or(GobError::TooMuch)?;
        self.values.set(left);
        if DEPTH_MAX <= depth {
            return Err(GobError::TooMuch);
        }
        Ok(match type_id {
            id::BOOL => GobValue::Bool(reader.uint()? != 0),
            id::INT => GobValue::Int(reader.int()?),
            id::UINT => GobValue::Uint(reader.uint()?),
            id::FLOAT => GobValue::Float(f64::from_bits(reader.uint()?.swap_bytes())),
            id::BYTES | id::STRING => GobValue::Bytes(reader.bytes()?),
            id::COMPLEX => {
                reader.uint()?;
                reader.uint()?;
                GobValue::Other
            }
            id::INTERFACE => return Err(GobError::Interface),
            other => self.defined(other, reader, depth + 1)?,
        })
    }

    fn defined<'m: 'a>(
        &self,
        type_id: i64,
        reader: &mut GobReader<'m>,
        depth: usize,
    ) -> Result<GobValue<'a>, GobError> {
        match self.types.defined.get(&type_id).ok_or(GobError::UndefinedType(type_id))? {
            GobType::Struct(fields) => self.structure(fields, reader, depth),
            GobType::List { element } => {
                let count = reader.len()?;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(self.value(*element, reader, depth)?);
                }
                Ok(GobValue::List(items))
            }
            GobType::Map { key, element } => {
                for _ in 0..reader.len()? {
                    self.value(*key, reader, depth)?;
                    self.value(*element, reader, depth)?;
                }
                Ok(GobValue::Other)
            }
            GobType::Opaque => reader.bytes().map(|_| GobValue::Other),
        }
    }

    fn structure<'m: 'a>(
        &self,
        fields: &'a [(String, i64)],
        reader: &mut GobReader<'m>,
        depth: usize,
    ) -> Result<GobValue<'a>, GobError> {
        let mut values = Vec::new();
        // One past the last field that was read: distances count from there.
        let mut next = 0_usize;
        loop {
            let distance = reader.uint()?;
            if distance == 0 {
                return Ok(GobValue::Struct(values));
            }
            let distance = usize::try_from(distance).map_err(|_| GobError::UnknownField)?;
            next = next.checked_add(distance).ok_or(GobError::UnknownField)?;
            let (name, type_id) = fields.get(next - 1).ok_or(GobError::UnknownField)?;
            values.push((name.as_str(), self.value(*type_id, reader, depth)?));
        }
    }
}

impl<'a> GobValue<'a> {
    /// A struct's field, unless it has its zero value.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Struct(fields) => {
                fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
            }
            Self::Bool(_)
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Float(_)
            | Self::Bytes(_)
            | Self::List(_)
            | Self::Other => None,
        }
    }

    /// A struct's text field; invalid UTF-8 is replaced.
    pub(super) fn text(&self, name: &str) -> String {
        let bytes = self.field(name).and_then(Self::as_bytes).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }

    pub(super) fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    pub(super) fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    pub(super) fn as_int(&self) -> Option<i64> {
        if let Self::Int(value) = self { Some(*value) } else { None }
    }

    pub(super) fn as_uint(&self) -> Option<u64> {
        if let Self::Uint(value) = self { Some(*value) } else { None }
    }

    pub(super) fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }
}

/// The bytes of a message that are still to be read.
struct GobReader<'m> {
    rest: &'m [u8],
}

impl<'m> GobReader<'m> {
    fn uint(&mut self) -> Result<u64, GobError> {
        let (first, rest) = self.rest.split_first().ok_or(GobError::Short)?;
        self.rest = rest;
        if *first < 0x80 {
            return Ok(u64::from(*first));
        }
        let count = usize::from(first.wrapping_neg());
        if 8 < count {
            return Err(GobError::Number);
        }
        let bytes = self.take(count)?;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn int(&mut self) -> Result<i64, GobError> {
        let bits = self.uint()?;
        let value = (bits >> 1).cast_signed();
        Ok(if bits & 1 == 0 { value } else { !value })
    }

    /// A length, of elements that have at least one byte each.
    fn len(&mut self) -> Result<usize, GobError> {
        let len = usize::try_from(self.uint()?).map_err(|_| GobError::Short)?;
        if self.rest.len() < len { Err(GobError::Short) } else { Ok(len) }
    }

    fn bytes(&mut self) -> Result<&'m [u8], GobError> {
        let len = self.len()?;
        self.take(len)
    }

    fn take(&mut self, len: usize) -> Result<&'m [u8], GobError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(GobError::Short)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
