//! Keys, and the one AEAD: XChaCha20-Poly1305.
//!
//! Owns: every name of the cryptographic library, key bytes in memory. Must not know: frames, files,
//! where nonces come from.
//!
//! Invariants: key bytes are never printed, and wiped when the last owner lets go of them; bytes are
//! handed out only after their tag held.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Bytes of a nonce: so many that random ones never meet, however many gateways share a key.
pub(crate) const NONCE_LEN: usize = 24;
/// Bytes of the tag that stands behind the ciphertext.
pub(crate) const TAG_LEN: usize = 16;

/// A key of 256 bits.
#[derive(PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(feature = "encryption")]
impl Drop for Key {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// The keys of a log: one that new segments are encrypted with, or none, and those of older segments.
///
/// An id names one key for ever; it stands in each segment's header, the key itself nowhere. Clones
/// share the keys' bytes, which are wiped with the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    current: Option<NonZeroU32>,
    ring: BTreeMap<NonZeroU32, Arc<Key>>,
}

impl Keys {
    /// No key: nothing is encrypted, and what is encrypted cannot be read.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds the key that new segments are encrypted with: 32 bytes of good randomness.
    #[must_use]
    pub fn write_with(mut self, id: NonZeroU32, key: [u8; 32]) -> Self {
        self.current = Some(id);
        self.read_with(id, key)
    }

    /// Adds a key of segments that were written before.
    #[must_use]
    pub fn read_with(mut self, id: NonZeroU32, key: [u8; 32]) -> Self {
        self.ring.insert(id, Arc::new(Key(key)));
        self
    }

    /// Whether there is no key.
    pub fn is_none(&self) -> bool {
        self.ring.is_empty()
    }

    /// The id of the key that new segments are encrypted with.
    pub fn current(&self) -> Option<NonZeroU32> {
        self.current
    }

    pub(crate) fn get(&self, id: NonZeroU32) -> Option<&Key> {
        self.ring.get(&id).map(|key| &**key)
    }

    /// Whether this build can do what is asked for.
    pub(crate) fn are_of_use(&self) -> bool {
        cfg!(feature = "encryption") || self.is_none()
    }
}

/// Encrypts in place; the tag goes behind the bytes. `None` where that cannot be done.
#[cfg(feature = "encryption")]
pub(crate) fn encrypt(
    key: &Key,
    nonce: [u8; NONCE_LEN],
    associated: &[u8],
    bytes: &mut [u8],
) -> Option<[u8; TAG_LEN]> {
    use chacha20poly1305::aead::AeadInOut;
    use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
    XChaCha20Poly1305::new((&key.0).into())
        .encrypt_inout_detached(&nonce.into(), associated, bytes.into())
        .ok()
        .map(Into::into)
}

/// Decrypts in place. `None`: it is another key, or not what was encrypted; the bytes are left as they
/// were.
#[cfg(feature = "encryption")]
pub(crate) fn decrypt(
    key: &Key,
    nonce: [u8; NONCE_LEN],
    associated: &[u8],
    bytes: &mut [u8],
    tag: [u8; TAG_LEN],
) -> Option<()> {
    use chacha20poly1305::aead::AeadInOut;
    use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
    XChaCha20Poly1305::new((&key.0).into())
        .decrypt_inout_detached(&nonce.into(), associated, bytes.into(), &tag.into())
        .ok()
}

#[cfg(not(feature = "encryption"))]
pub(crate) fn encrypt(
    _: &Key,
    _: [u8; NONCE_LEN],
    _: &[u8],
    _: &mut [u8],
) -> Option<[u8; TAG_LEN]> {
    None
}

#[cfg(not(feature = "encryption"))]
pub(crate) fn decrypt(
    _: &Key,
    _: [u8; NONCE_LEN],
    _: &[u8],
    _: &mut [u8],
    _: [u8; TAG_LEN],
) -> Option<()> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let id = NonZeroU32::MIN;
        let keys = Keys::none().write_with(id, [0xab; 32]);
        let text = format!("{keys:?} {keys:#?}");
        assert!(!text.contains("171") && !text.contains("ab"), "{text}");
        assert!(text.contains("Key(..)"));
    }
}
