use std::fmt;

#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "zstd")]
mod zstd;

/// How payloads are compressed, and from which length on; for [`CacheBuilder::compression`](crate::CacheBuilder::compression).
///
/// Made by `lz4`, with the cargo feature of that name, or `zstd`, likewise. What does not get smaller is stored as it is.
///
/// ```
/// # #[cfg(feature = "lz4")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), nearfar::Error> {
/// use nearfar::{Cache, Compression, Nearfar};
///
/// let pages: Cache<String, String> =
///     Nearfar::in_process().cache("pages").compression(Compression::lz4().above(2048)).build().await?;
/// pages.set("/", "<p>".repeat(10_000)).await?;
/// assert_eq!(pages.get("/").await?.unwrap().len(), 30_000);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "lz4"))]
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    method: Method,
    above: usize,
}

impl Compression {
    /// Of shorter ones, the header and what Redis adds are a third of the entry and more.
    #[cfg(any(feature = "lz4", feature = "zstd"))]
    const ABOVE: usize = 512;

    /// LZ4: some 10 microseconds for 10 KiB when written, and less when read. For values that come and go often.
    #[cfg(feature = "lz4")]
    pub const fn lz4() -> Self {
        Self { method: Method::Lz4, above: Self::ABOVE }
    }

    /// Zstandard, level 3: a third smaller than LZ4, and two to three times slower. For large values, and where memory of
    /// Redis is what costs. Each thread that compresses keeps its tables, up to some MB.
    #[cfg(feature = "zstd")]
    pub const fn zstd() -> Self {
        Self { method: Method::Zstd, above: Self::ABOVE }
    }

    /// Leaves payloads of up to so many bytes as they are. Defaults to 512: shorter ones would save a fifth of their memory
    /// in Redis at the most, see `docs/codecs.md`.
    pub const fn above(self, bytes: usize) -> Self {
        Self { above: bytes, ..self }
    }

    /// The one of that name, if it is compiled in.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            #[cfg(feature = "lz4")]
            "lz4" => Some(Self::lz4()),
            #[cfg(feature = "zstd")]
            "zstd" => Some(Self::zstd()),
            _ => None,
        }
    }

    /// The compressed bytes, and how, if that is worth it.
    pub(crate) fn compress(self, plain: &[u8]) -> Option<(Method, Vec<u8>)> {
        let compressed = (plain.len() > self.above).then(|| self.method.compressor()(plain))??;
        (Method::PREFIX_LEN + compressed.len() < plain.len()).then_some((self.method, compressed))
    }
}

/// As a [`CacheConfig`](crate::CacheConfig) has it.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.method.name(), self.above)
    }
}

/// What a compression id stands for, of those that are compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    #[cfg(feature = "lz4")]
    Lz4,
    #[cfg(feature = "zstd")]
    Zstd,
}

impl Method {
    /// In front of compressed bytes stands how many they were.
    pub(crate) const PREFIX_LEN: usize = 4;

    pub(crate) fn from_wire(id: u8) -> Option<Self> {
        match id {
            #[cfg(feature = "lz4")]
            1 => Some(Self::Lz4),
            #[cfg(feature = "zstd")]
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => "lz4",
            #[cfg(feature = "zstd")]
            Self::Zstd => "zstd",
        }
    }

    pub(crate) fn to_wire(self) -> u8 {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => 1,
            #[cfg(feature = "zstd")]
            Self::Zstd => 2,
        }
    }

    /// The `len` bytes that these were, and no other number of them. So many are allocated: the caller has bounded it.
    pub(crate) fn decompress(self, compressed: &[u8], len: usize) -> Option<Vec<u8>> {
        self.decompressor()(compressed, len).filter(|plain| plain.len() == len)
    }

    fn compressor(self) -> Compressor {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4::compress,
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::compress,
        }
    }

    fn decompressor(self) -> Decompressor {
        match self {
            #[cfg(feature = "lz4")]
            Self::Lz4 => lz4::decompress,
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::decompress,
        }
    }
}

type Compressor = fn(&[u8]) -> Option<Vec<u8>>;

/// Gives no more bytes than are asked for.
type Decompressor = fn(&[u8], usize) -> Option<Vec<u8>>;
