//! A Zstandard frame.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

/// Zstandard's own default, the best of what is still quick.
const LEVEL: i32 = 3;

thread_local! {
    // To make one takes longer than to compress a few KiB with it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// `None` without memory for it; the value is stored as it is then.
pub(super) fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = Compressor::new(LEVEL).ok();
        }
        compressor.as_mut()?.compress(plain).ok()
    })
}

pub(super) fn decompress(compressed: &[u8], len: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        if decompressor.is_none() {
            *decompressor = Decompressor::new().ok();
        }
        // It never makes the vector grow.
        let mut plain = Vec::with_capacity(len);
        decompressor.as_mut()?.decompress_to_buffer(compressed, &mut plain).ok()?;
        Some(plain)
    })
}
