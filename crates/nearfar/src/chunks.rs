//! How much is done in one step.

/// One step holds up everything else at the server, so it has no more keys than this.
const MOST: usize = 1_000;

/// Nor more bytes, unless one key alone has them.
const MOST_BYTES: usize = 1024 * 1024;

/// What is to be done, in steps that are not too large.
pub(crate) fn chunks<T>(all: impl IntoIterator<Item = T>, len: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut room = 0;
    for one in all {
        let needs = len(&one);
        if let Some(chunk) = chunks.last_mut().filter(|chunk| chunk.len() < MOST && needs <= room) {
            chunk.push(one);
        } else {
            room = MOST_BYTES;
            chunks.push(vec![one]);
        }
        room = room.saturating_sub(needs);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_neither_too_many_keys_nor_too_many_bytes() {
        let lens = |chunks: Vec<Vec<usize>>| chunks.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lens(chunks(vec![0; 2_500], |len| *len)), [1_000, 1_000, 500]);
        let half = MOST_BYTES / 2;
        assert_eq!(lens(chunks(vec![half, half, 1, MOST_BYTES * 2, 1], |len| *len)), [2, 1, 1, 1]);
        assert!(chunks(Vec::<usize>::new(), |len| *len).is_empty());
    }
}
