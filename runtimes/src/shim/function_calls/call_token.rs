//! The token of one sandbox: random, compared in constant time, never printed.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

const TOKEN_BYTES: usize = 32;
/// The scheme of the `Authorization` header, which is not case-sensitive (RFC 9110, section 11.1).
const SCHEME: &str = "bearer ";

/// Authenticates the sandbox's own processes to its call endpoint.
pub(super) struct CallToken([u8; 2 * TOKEN_BYTES]);

impl fmt::Debug for CallToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl CallToken {
    /// A new random token.
    pub(super) fn generate() -> io::Result<Self> {
        let mut random = [0; TOKEN_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let mut text = [0; 2 * TOKEN_BYTES];
        for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 0xf)]);
        }
        Ok(Self(text))
    }

    /// The token in hexadecimal.
    pub(super) fn as_text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// Whether an `Authorization` header carries this token.
    pub(super) fn authorizes(&self, header: Option<&str>) -> bool {
        let Some((scheme, given)) = header.and_then(|text| text.split_at_checked(SCHEME.len()))
        else {
            return false;
        };
        let given = given.trim().as_bytes();
        if !scheme.eq_ignore_ascii_case(SCHEME) || given.len() != self.0.len() {
            return false;
        }
        let difference = self.0.iter().zip(given).fold(0, |all, (own, other)| all | (own ^ other));
        difference == 0
    }
}

fn hex_digit(value: u8) -> u8 {
    char::from_digit(u32::from(value), 16).map_or(b'0', |digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_authorizes_itself_and_nothing_else() {
        let (token, other) = (CallToken::generate().unwrap(), CallToken::generate().unwrap());
        let text = token.as_text();
        assert!(token.authorizes(Some(&format!("Bearer {text}"))));
        assert!(token.authorizes(Some(&format!("bearer  {text} "))));
        assert!(!other.authorizes(Some(&format!("Bearer {text}"))));
        assert!(!token.authorizes(Some(&text)));
        assert!(!token.authorizes(Some(&format!("Basic {text}"))));
        assert!(!token.authorizes(Some(&format!("Bearer {text}0"))));
        for header in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("ééééé")] {
            assert!(!token.authorizes(header), "{header:?}");
        }
        assert_eq!(text.len(), 64);
        assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", CallToken::generate().unwrap()), "***");
    }
}
