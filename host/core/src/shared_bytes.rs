//! Bytes that many hold at once: payloads, results, chunks and values.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Size in bytes from which a `Vec` is kept instead of copied. Below it, copying costs no more than a second allocation.
const KEPT_BYTES_MIN: usize = 2048;

/// Immutable bytes whose clones share them.
///
/// Made from a large `Vec`, it keeps the buffer of the `Vec`; `Arc<[u8]>` would copy it. Made from a slice or a small
/// `Vec`, it is one allocation, as an `Arc<[u8]>` is; an `Arc<Vec<u8>>` would be two.
#[derive(Clone)]
pub struct SharedBytes(Holder);

#[derive(Clone)]
enum Holder {
    Slice(Arc<[u8]>),
    Buffer(Arc<Vec<u8>>),
}

impl Default for SharedBytes {
    fn default() -> SharedBytes {
        SharedBytes(Holder::Slice(Arc::default()))
    }
}

impl Deref for SharedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Holder::Slice(bytes) => bytes,
            Holder::Buffer(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(mut bytes: Vec<u8>) -> SharedBytes {
        if bytes.len() < KEPT_BYTES_MIN {
            return bytes.as_slice().into();
        }
        // It may be kept for long, and what was reserved for more bytes with it.
        bytes.shrink_to_fit();
        SharedBytes(Holder::Buffer(Arc::new(bytes)))
    }
}

impl From<&[u8]> for SharedBytes {
    fn from(bytes: &[u8]) -> SharedBytes {
        SharedBytes(Holder::Slice(bytes.into()))
    }
}

impl<const N: usize> From<&[u8; N]> for SharedBytes {
    fn from(bytes: &[u8; N]) -> SharedBytes {
        bytes.as_slice().into()
    }
}

impl<const N: usize> From<[u8; N]> for SharedBytes {
    fn from(bytes: [u8; N]) -> SharedBytes {
        bytes.as_slice().into()
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &SharedBytes) -> bool {
        **self == **other
    }
}

impl Eq for SharedBytes {}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_is_kept_and_a_small_one_is_one_allocation() {
        for (length, is_kept) in [(0, false), (KEPT_BYTES_MIN - 1, false), (KEPT_BYTES_MIN, true), (1 << 20, true)] {
            let buffer = vec![7; length];
            let address = buffer.as_ptr();
            let bytes = SharedBytes::from(buffer);
            assert_eq!((bytes.len(), bytes.as_ptr() == address), (length, is_kept), "{length}");
            assert_eq!(bytes.clone().as_ptr(), bytes.as_ptr(), "clones share the bytes");
        }
        assert_eq!(size_of::<SharedBytes>(), size_of::<Arc<[u8]>>(), "the kind takes no room");
    }

    #[test]
    fn reserved_memory_is_not_kept() {
        let mut buffer = Vec::with_capacity(1 << 20);
        buffer.resize(KEPT_BYTES_MIN, 7);
        let Holder::Buffer(kept) = SharedBytes::from(buffer).0 else { panic!("it is large") };
        assert!(kept.capacity() < 1 << 19, "{}", kept.capacity());
    }

    #[test]
    fn equality_is_that_of_the_bytes() {
        let buffer = vec![7; KEPT_BYTES_MIN];
        let slice = SharedBytes::from(buffer.as_slice());
        assert_eq!(slice, SharedBytes::from(buffer));
        assert_ne!(slice, SharedBytes::default());
        assert_eq!(SharedBytes::from(b"ab"), SharedBytes::from([b'a', b'b']));
        assert_eq!(format!("{:?}", SharedBytes::from(b"ab")), "[97, 98]");
    }
}
