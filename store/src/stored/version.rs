//! The version of a stored format.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of a stored value's format, of which this program knows the first to `NEWEST`.
///
/// The first version is not written: a value without one is of the first version, as every value
/// is that was stored before formats had versions. A field with a default is added without a new
/// version; a new version is for what an older program would misread, and its type then converts
/// every older version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FormatVersion<const NEWEST: u32>(u32);

impl<const NEWEST: u32> FormatVersion<NEWEST> {
    const FIRST: u32 = 1;

    /// What this program writes.
    pub(crate) fn newest() -> Self {
        Self(NEWEST)
    }

    pub(crate) fn is_first(&self) -> bool {
        self.0 == Self::FIRST
    }
}

impl<const NEWEST: u32> Default for FormatVersion<NEWEST> {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

impl<const NEWEST: u32> Serialize for FormatVersion<NEWEST> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

impl<'de, const NEWEST: u32> Deserialize<'de> for FormatVersion<NEWEST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let version = u32::deserialize(deserializer)?;
        if (Self::FIRST..=NEWEST).contains(&version) {
            return Ok(Self(version));
        }
        Err(D::Error::custom(format_args!(
            "it has format {version}, this program knows formats up to {NEWEST}: start the newer \
             hanshu"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Example<const NEWEST: u32> {
        #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
        format: FormatVersion<NEWEST>,
    }

    #[test]
    fn the_first_version_is_not_written_and_a_newer_one_is_refused() {
        let first = Example::<1> { format: FormatVersion::newest() };
        assert_eq!(serde_json::to_string(&first).unwrap(), "{}");
        let second = Example::<2> { format: FormatVersion::newest() };
        assert_eq!(serde_json::to_string(&second).unwrap(), r#"{"format":2}"#);
        let read: Example<2> = serde_json::from_str("{}").unwrap();
        assert!(read.format.is_first());
        let error = serde_json::from_str::<Example<1>>(r#"{"format":2}"#).unwrap_err();
        assert!(error.to_string().contains("start the newer hanshu"), "{error}");
    }
}
