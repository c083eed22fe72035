//! Writes `encoding/gob`: numbers, structs, and the definitions of struct types.
//!
//! Format: the documentation of Go's package `encoding/gob`, and the bytes captured in scf.md §6.6.

/// The ids that every gob stream knows.
pub(super) mod id {
    pub(crate) const BOOL: i64 = 1;
    pub(crate) const INT: i64 = 2;
    pub(crate) const UINT: i64 = 3;
    pub(crate) const FLOAT: i64 = 4;
    pub(crate) const BYTES: i64 = 5;
    pub(crate) const STRING: i64 = 6;
    pub(crate) const COMPLEX: i64 = 7;
    pub(crate) const INTERFACE: i64 = 8;
    pub(crate) const WIRE_TYPE: i64 = 16;
}

/// A struct type's definition: its id, name, and the fields' names and types.
#[derive(Clone, Copy, Debug)]
pub(super) struct StructDefinition {
    pub(super) id: i64,
    pub(super) name: &'static str,
    pub(super) fields: &'static [(&'static str, i64)],
}

/// An unsigned number: one byte below 128, else the negated count of bytes, then those bytes.
pub(super) fn uint(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    match bytes.get(zeros..) {
        Some([]) | None => out.push(0),
        Some([small]) if *small < 0x80 => out.push(*small),
        Some(rest) => {
            // At most 8, so that nothing is cut off.
            out.push(u8::try_from(rest.len()).unwrap_or(8).wrapping_neg());
            out.extend_from_slice(rest);
        }
    }
}

/// A signed number, with the sign in the lowest bit.
pub(super) fn int(out: &mut Vec<u8>, value: i64) {
    let bits = if value < 0 { !value << 1 | 1 } else { value << 1 };
    uint(out, bits.cast_unsigned());
}

/// Bytes or text, preceded by the length.
pub(super) fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    uint(out, u64::try_from(value.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(value);
}

/// A message: what `body` writes, preceded by its length.
pub(super) fn message(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    body(&mut content);
    bytes(out, &content);
}

/// The message that defines a type.
pub(super) fn define(out: &mut Vec<u8>, definition: &StructDefinition) {
    message(out, |out| {
        int(out, -definition.id);
        let mut wire_type = StructFieldWriter::new(out);
        // StructT, whose first field is CommonType (a struct of name and id), the second Field.
        wire_type.nested(3, |struct_type| {
            struct_type.nested(1, |common| {
                common.text(1, definition.name);
                common.int(2, definition.id);
            });
            if !definition.fields.is_empty() {
                define_fields(struct_type.begin(2), definition);
            }
        });
        wire_type.end();
    });
}

fn define_fields(out: &mut Vec<u8>, definition: &StructDefinition) {
    uint(out, u64::try_from(definition.fields.len()).unwrap_or(0));
    for (name, type_id) in definition.fields {
        let mut field = StructFieldWriter::new(out);
        field.text(1, name);
        field.int(2, *type_id);
        field.end();
    }
}

/// The fields of one struct value, in order. A field with its zero value is left out.
#[derive(Debug)]
pub(super) struct StructFieldWriter<'a> {
    out: &'a mut Vec<u8>,
    last: u64,
}

impl<'a> StructFieldWriter<'a> {
    pub(super) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, last: 0 }
    }

    /// Continues after a field that was written by other means.
    pub(super) const fn after(mut self, number: u64) -> Self {
        self.last = number;
        self
    }

    pub(super) fn text(&mut self, number: u64, value: &str) {
        self.bytes(number, value.as_bytes());
    }

    pub(super) fn bytes(&mut self, number: u64, value: &[u8]) {
        if !value.is_empty() {
            bytes(self.begin(number), value);
        }
    }

    pub(super) fn int(&mut self, number: u64, value: i64) {
        if value != 0 {
            int(self.begin(number), value);
        }
    }

    pub(super) fn uint(&mut self, number: u64, value: u64) {
        if value != 0 {
            uint(self.begin(number), value);
        }
    }

    pub(super) fn nested(&mut self, number: u64, body: impl FnOnce(&mut StructFieldWriter<'_>)) {
        let mut inner = StructFieldWriter::new(self.begin(number));
        body(&mut inner);
        inner.end();
    }

    pub(super) fn end(self) {
        self.out.push(0);
    }

    /// Writes a field's number, counted from 1, as the distance from the field before it.
    fn begin(&mut self, number: u64) -> &mut Vec<u8> {
        uint(self.out, number - self.last);
        self.last = number;
        self.out
    }
}
