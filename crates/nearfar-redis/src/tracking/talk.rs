//! A connection on which a server tells which keys are written to: RESP3, with nothing else on it.

use std::io;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::OwnedFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::security::Stream;
use crate::server::Server;

/// What is not whole yet is looked at again with each read, so reads are not small.
const ROOM: usize = 16 * 1024;

pub(super) struct Talk {
    stream: Box<dyn Stream>,
    /// What has come of something that is not whole yet.
    unread: BytesMut,
}

/// What a server says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// These keys were written to.
    Written(Vec<Bytes>),
    /// All keys were, by `FLUSHALL` or the like.
    Flushed,
    /// An answer, or something that nobody has asked for.
    Answer,
    /// An answer that refuses.
    Refusal(String),
}

impl Talk {
    pub(super) async fn open(server: &Server) -> io::Result<Self> {
        Ok(Self { stream: server.open_stream().await?, unread: BytesMut::new() })
    }

    /// Does not wait for the answer.
    pub(super) async fn ask<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).await
    }

    /// # Cancel safety
    /// Nothing that was read is lost.
    pub(super) async fn next(&mut self) -> io::Result<Said> {
        loop {
            if let Some((frame, len)) = decode(&self.unread).map_err(io::Error::other)? {
                let _ = self.unread.split_to(len);
                return Ok(said(frame));
            }
            self.unread.reserve(ROOM);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn said(frame: OwnedFrame) -> Said {
    match frame {
        OwnedFrame::Push { data, .. } => pushed(data),
        OwnedFrame::SimpleError { data, .. } => Said::Refusal(data),
        OwnedFrame::BlobError { data, .. } => Said::Refusal(String::from_utf8_lossy(&data).into_owned()),
        _ => Said::Answer,
    }
}

/// `invalidate`, and then an array of keys, or null for all of them.
fn pushed(data: Vec<OwnedFrame>) -> Said {
    match <[OwnedFrame; 2]>::try_from(data) {
        Ok([kind, what]) if bytes(&kind) == Some(b"invalidate") => match what {
            OwnedFrame::Array { data, .. } => {
                Said::Written(data.iter().filter_map(bytes).map(Bytes::copy_from_slice).collect())
            }
            _ => Said::Flushed,
        },
        _ => Said::Answer,
    }
}

fn bytes(frame: &OwnedFrame) -> Option<&[u8]> {
    match frame {
        OwnedFrame::BlobString { data, .. } | OwnedFrame::SimpleString { data, .. } => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &str) -> Said {
        said(decode(wire.as_bytes()).unwrap().unwrap().0)
    }

    #[test]
    fn pushes_answers_and_refusals_are_told_apart() {
        let written = read(">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        assert_eq!(written, Said::Written(vec!["a".into(), "b".into()]));
        assert_eq!(read(">2\r\n$10\r\ninvalidate\r\n_\r\n"), Said::Flushed);
        assert_eq!(read("+OK\r\n"), Said::Answer);
        assert_eq!(read(">2\r\n$5\r\nother\r\n_\r\n"), Said::Answer);
        assert_eq!(read("-NOPERM no\r\n"), Said::Refusal("NOPERM no".to_owned()));
    }
}
