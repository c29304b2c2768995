//! Reading big-endian fields from bytes that nobody vouches for.

/// A cursor that yields `None` past the end instead of panicking.
pub(crate) struct BytesIn<'a> {
    rest: &'a [u8],
}

impl<'a> BytesIn<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }
}

/// A length as the wire has it. Lengths over 4 GiB cannot be framed; callers bound theirs far below.
pub(crate) fn wire_len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("lengths are bounded before they are framed")
}
