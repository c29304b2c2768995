//! A Zstandard frame.

use zstd::bulk;

/// Zstandard's own default, the best of what is still quick.
const LEVEL: i32 = 3;

/// `None` without memory for it; the value is stored as it is then.
pub(super) fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    bulk::compress(plain, LEVEL).ok()
}

pub(super) fn decompress(compressed: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(len);
    // It never grows the vector.
    bulk::Decompressor::new().ok()?.decompress_to_buffer(compressed, &mut plain).ok()?;
    Some(plain)
}
