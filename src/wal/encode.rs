//! What can be appended.
//!
//! Owns: [`Encode`], for bytes of every usual kind. Must not know: where they are written.

/// Something that can be appended: its bytes are written straight into the staging buffer.
///
/// `encode` runs while other appenders wait: it must only copy.
pub trait Encode {
    /// Bytes that [`encode`](Self::encode) will write.
    fn encoded_len(&self) -> usize;
    /// Writes exactly [`encoded_len`](Self::encoded_len) bytes; `out` is that long.
    fn encode(&self, out: &mut [u8]);
}

impl Encode for [u8] {
    fn encoded_len(&self) -> usize {
        self.len()
    }

    fn encode(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encoded_len(&self) -> usize {
        N
    }

    fn encode(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }
}

impl Encode for Vec<u8> {
    fn encoded_len(&self) -> usize {
        self.len()
    }

    fn encode(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }
}

impl Encode for bytes::Bytes {
    fn encoded_len(&self) -> usize {
        self.len()
    }

    fn encode(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }
}

impl<E: Encode + ?Sized> Encode for &E {
    fn encoded_len(&self) -> usize {
        (**self).encoded_len()
    }

    fn encode(&self, out: &mut [u8]) {
        (**self).encode(out);
    }
}
