//! Who calls the API: `Authorization: Basic` with secret id and key, checked from memory.
//!
//! There is no challenge in the answer: a browser never asks for a password, and so never has one
//! to send along with somebody else's request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hanshu_controller::{Access, Principal};
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Longest `id:secret`: both are known to be short.
const CREDENTIALS_BYTES_MAX: usize = 256;

/// Whoever the header names, if the secret is right.
pub(crate) fn authenticate(access: &Access, headers: &HeaderMap) -> Option<Principal> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut buffer = [0; CREDENTIALS_BYTES_MAX];
    let length = BASE64.decode_slice(encoded.trim_ascii(), &mut buffer).ok()?;
    let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
    let (id, secret) = text.split_once(':')?;
    access.authenticate(id, secret)
}
