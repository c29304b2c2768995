//! One LZ4 block.

use lz4_flex::block;

#[expect(clippy::unnecessary_wraps, reason = "another compression may fail")]
pub(super) fn compress(plain: &[u8]) -> Option<Vec<u8>> {
    Some(block::compress(plain))
}

pub(super) fn decompress(compressed: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut plain = vec![0; len];
    let written = block::decompress_into(compressed, &mut plain).ok()?;
    plain.truncate(written);
    Some(plain)
}
