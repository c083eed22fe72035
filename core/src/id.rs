//! Identifiers, each a type of its own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::NameError;

/// One invocation, from the moment the platform accepts it. Returned to the caller, written on
/// every log line, and handed to the function in its context. A UUID of version 7, so that its
/// time of birth (milliseconds) can be read from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(Uuid);

/// One sandbox, from its start to its removal. Part of container, cgroup and folder names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(Uuid);

/// One server process' data folder, kept over restarts: what it left behind is found by this.
/// 1 to 40 lower-case letters, digits and `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Box<str>);

impl RequestId {
    /// A new id, unique in the world.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Milliseconds since 1970 at which the id was made; `None` for a foreign kind of UUID.
    pub fn born_ms(&self) -> Option<u64> {
        let (secs, nanos) = self.0.get_timestamp()?.to_unix();
        Some(secs * 1000 + u64::from(nanos) / 1_000_000)
    }

    /// The 36 characters, without allocating.
    pub fn encode<'a>(&self, buffer: &'a mut [u8; 36]) -> &'a str {
        self.0.hyphenated().encode_lower(buffer)
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl InstanceId {
    /// A new id, unique in the world.
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

impl Default for InstanceId {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeId {
    /// A new id, unique in the world.
    pub fn new() -> Self {
        let text = Uuid::new_v4().simple().to_string();
        Self(text.get(..12).unwrap_or(&text).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NodeId {
    fn default() -> Self {
        Self::new()
    }
}

impl FromStr for NodeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let ok = (1..=40).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        ok.then(|| Self(text.into())).ok_or_else(|| {
            NameError::new("node id", text, "1 to 40 lower-case letters, digits and `-`")
        })
    }
}

impl TryFrom<String> for NodeId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! uuid_text {
    ($name:ident, $what:literal) => {
        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| NameError::new($what, text, "a UUID such as `01890a5d-…`"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

uuid_text!(RequestId, "request id");
uuid_text!(InstanceId, "instance id");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_knows_when_it_was_born() {
        let born = RequestId::new().born_ms().unwrap();
        assert!(born > 1_700_000_000_000, "{born}");
    }

    #[test]
    fn a_request_id_survives_text() {
        let id = RequestId::new();
        assert_eq!(id.to_string().parse::<RequestId>().unwrap(), id);
        assert_eq!(id.encode(&mut [0; 36]), id.to_string());
    }
}
