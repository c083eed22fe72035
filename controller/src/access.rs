//! Access keys: made, kept encrypted, and checked from memory.
//!
//! Secrets are encrypted rather than hashed, since signatures need the plain secret.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hanshu_core::ports::{AccessKey, FunctionRegistry};
use hanshu_core::{Actor, Clock, Secret};
use subtle::ConstantTimeEq as _;

use crate::error::ControllerError;
use crate::random::alphanumerics;

/// Bytes of the nonce in front of each ciphertext (AES-GCM).
const NONCE_BYTES: usize = 12;

/// The key under which secrets are kept: 32 bytes, in a file of mode 0600 or the environment.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

/// An access key with its secret in plain: for the one who may see it.
#[derive(Clone, Debug)]
pub struct SecretKey {
    /// The key's id: `AKID` and 32 alphanumerics where the platform made it.
    pub id: String,
    /// The key's secret: 32 alphanumerics where the platform made it.
    pub secret: Secret,
}

/// All access keys, decrypted in memory.
pub struct AccessKeys {
    master: MasterKey,
    keys: ArcSwap<HashMap<String, KnownKey>>,
}

struct KnownKey {
    id: Arc<str>,
    secret: Secret,
}

impl MasterKey {
    /// A new random key.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Reads 64 hexadecimal characters; white space around them is ignored.
    pub fn from_hex(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut bytes = [0u8; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// 64 hexadecimal characters, for the key file only.
    pub fn to_hex(&self) -> Secret {
        Secret::new(hanshu_core::Digest::from_bytes(self.0).to_string())
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&Key::<Aes256Gcm>::from(self.0))
    }

    /// Ciphertext bound to the key's id: it cannot be moved to another row.
    fn seal(&self, id: &str, secret: &Secret) -> Result<String, ControllerError> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: secret.expose().as_bytes(), aad: id.as_bytes() };
        let sealed = self
            .cipher()
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_| ControllerError::Sealing { id: id.into(), what: "sealed" })?;
        Ok(BASE64.encode([&nonce[..], &sealed].concat()))
    }

    pub(crate) fn open(&self, id: &str, sealed: &str) -> Result<Secret, ControllerError> {
        let failed = || ControllerError::Sealing { id: id.into(), what: "opened" };
        let bytes = BASE64.decode(sealed).map_err(|_| failed())?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or_else(failed)?;
        let payload = Payload { msg: sealed, aad: id.as_bytes() };
        let plain = self.cipher().decrypt(&Nonce::from(*nonce), payload).map_err(|_| failed())?;
        String::from_utf8(plain).map(Secret::new).map_err(|_| failed())
    }
}

impl AccessKeys {
    /// No keys yet: [`AccessKeys::refresh`] reads them.
    pub fn new(master: MasterKey) -> Self {
        Self { master, keys: ArcSwap::default() }
    }

    /// Reads all keys from the registry.
    ///
    /// # Errors
    /// The registry is unavailable, or a key was sealed under another master key.
    pub async fn refresh(&self, registry: &dyn FunctionRegistry) -> Result<(), ControllerError> {
        let mut keys = HashMap::new();
        for key in registry.keys().await? {
            let secret = self.master.open(&key.id, &key.sealed)?;
            keys.insert(key.id.clone(), KnownKey { id: key.id.into(), secret });
        }
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// Adds a key: the given one, or a new one.
    ///
    /// # Errors
    /// The registry is unavailable, or the id is taken.
    pub async fn create(
        &self,
        registry: &dyn FunctionRegistry,
        clock: &dyn Clock,
        wanted: Option<SecretKey>,
    ) -> Result<SecretKey, ControllerError> {
        let key = wanted.unwrap_or_else(|| SecretKey {
            id: format!("AKID{}", alphanumerics(32)),
            secret: Secret::new(alphanumerics(32)),
        });
        let sealed = self.master.seal(&key.id, &key.secret)?;
        let row = AccessKey { id: key.id.clone(), sealed, created_at: clock.now() };
        registry.add_key(row).await?;
        self.refresh(registry).await?;
        Ok(key)
    }

    /// Whether any key exists.
    pub fn is_empty(&self) -> bool {
        self.keys.load().is_empty()
    }

    /// A key with its secret, for the operator's credentials file.
    pub fn reveal(&self, id: &str) -> Option<SecretKey> {
        let keys = self.keys.load();
        keys.get(id).map(|entry| SecretKey { id: id.into(), secret: entry.secret.clone() })
    }

    /// Any one key (the one with the smallest id), for the operator's credentials file.
    pub fn any_key(&self) -> Option<SecretKey> {
        let keys = self.keys.load();
        keys.keys().min().and_then(|id| self.reveal(id))
    }

    /// The owner of the key, if the secret is right. From memory, in a time that does not depend on
    /// how much of the secret is right.
    pub fn authenticate(&self, id: &str, secret: &str, address: Option<IpAddr>) -> Option<Actor> {
        let keys = self.keys.load();
        let key = keys.get(id)?;
        let right = key.secret.expose().as_bytes().ct_eq(secret.as_bytes());
        bool::from(right).then(|| Actor::access_key(key.id.clone(), address))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

impl fmt::Debug for AccessKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKeys").field("keys", &self.keys.load().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_under_its_own_key_and_id_only() {
        let master = MasterKey::generate();
        let secret = Secret::new("s3cret");
        let sealed = master.seal("AKID1", &secret).unwrap();
        assert_eq!(master.open("AKID1", &sealed).unwrap(), secret);
        assert!(master.open("AKID2", &sealed).is_err());
        assert!(MasterKey::generate().open("AKID1", &sealed).is_err());
        assert!(!sealed.contains("s3cret"));
    }

    #[test]
    fn a_master_key_survives_its_file() {
        let master = MasterKey::generate();
        let again = MasterKey::from_hex(&format!("{}\n", master.to_hex().expose())).unwrap();
        assert_eq!(again.0, master.0);
        assert!(MasterKey::from_hex("abc").is_none());
        assert!(MasterKey::from_hex(&"é".repeat(32)).is_none());
    }

    #[test]
    fn no_secret_is_ever_printed() {
        let key = SecretKey { id: "AKID1".into(), secret: Secret::new("s3cret") };
        assert!(!format!("{key:?} {:?}", MasterKey::generate()).contains("s3cret"));
    }
}
