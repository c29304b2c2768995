//! Enough of RESP2 to talk to a server behind the back of the client under test.

use std::fmt::Debug;
use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::door::Door;

/// A server that takes longer is hung, paused or gone.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A status, such as `OK`.
    Simple(String),
    /// An error, such as `NOSCRIPT No matching script.`
    Error(String),
    /// A number.
    Int(i64),
    /// Bytes, or none where the key does not exist.
    Bulk(Option<Vec<u8>>),
    /// Several replies. A null array is empty.
    Array(Vec<Reply>),
}

impl Reply {
    /// Whether this is the status `OK`.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Simple(status) if status == "OK")
    }

    /// The number, if this is one.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The bytes, if these are bytes.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bulk(bytes) => bytes.as_deref(),
            _ => None,
        }
    }

    /// The text of a status, of an error or of bytes that are UTF-8.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Simple(text) | Self::Error(text) => Some(text),
            Self::Bulk(Some(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The members, if this is an array.
    pub fn array(&self) -> Option<&[Reply]> {
        match self {
            Self::Array(members) => Some(members),
            _ => None,
        }
    }
}

/// One plain connection to a server, one command at a time.
///
/// A call that fails or is dropped half-way leaves the connection out of step: open another.
#[derive(Debug)]
pub struct RespClient {
    stream: Stream,
}

impl RespClient {
    /// Connects to `port` on the loopback interface.
    ///
    /// # Errors
    ///
    /// If nothing accepts the connection within 5 seconds.
    pub async fn connect(port: u16) -> io::Result<Self> {
        Self::through(&Door::Port(port)).await
    }

    pub(crate) async fn through(door: &Door) -> io::Result<Self> {
        let stream: Box<dyn Wire> = match door {
            Door::Port(port) => Box::new(within(TcpStream::connect((Ipv4Addr::LOCALHOST, *port))).await?),
            Door::Socket(path) => Box::new(within(UnixStream::connect(path)).await?),
        };
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and waits for its reply. An error reply is an `Ok(Reply::Error(..))`.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or no reply comes within 5 seconds.
    pub async fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        within(async {
            self.stream.get_mut().write_all(&encode(args)).await?;
            read_reply(&mut self.stream).await
        })
        .await
    }

    /// Waits for one more reply, such as a message of a channel that this connection subscribed to.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or nothing comes within 5 seconds.
    pub async fn next(&mut self) -> io::Result<Reply> {
        within(read_reply(&mut self.stream)).await
    }
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(TIMEOUT, work).await?
}

fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args.iter().map(AsRef::as_ref) {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

type Stream = BufReader<Box<dyn Wire>>;

trait Wire: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Sync + Unpin> Wire for T {}

/// Boxed, because the replies of an array are read by the same function.
fn read_reply(stream: &mut Stream) -> Pin<Box<dyn Future<Output = io::Result<Reply>> + Send + '_>> {
    Box::pin(async move {
        let line = read_line(stream).await?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| malformed(&line))?;
        match kind {
            "+" => Ok(Reply::Simple(rest.to_owned())),
            "-" => Ok(Reply::Error(rest.to_owned())),
            ":" => Ok(Reply::Int(rest.parse().map_err(|_| malformed(&line))?)),
            "$" => Ok(Reply::Bulk(read_bulk(stream, length(&line)?).await?)),
            "*" => {
                let mut members = Vec::new();
                for _ in 0..length(&line)?.unwrap_or(0) {
                    members.push(read_reply(stream).await?);
                }
                Ok(Reply::Array(members))
            }
            _ => Err(malformed(&line)),
        }
    })
}

async fn read_line(stream: &mut Stream) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn read_bulk(stream: &mut Stream, length: Option<usize>) -> io::Result<Option<Vec<u8>>> {
    let Some(length) = length else {
        return Ok(None);
    };
    let mut bytes = vec![0; length + 2];
    stream.read_exact(&mut bytes).await?;
    bytes.truncate(length);
    Ok(Some(bytes))
}

/// The length behind `$` or `*`; -1 means null.
fn length(line: &str) -> io::Result<Option<usize>> {
    match &line[1..] {
        "-1" => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| malformed(line)),
    }
}

fn malformed(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP2: {line:?}"))
}
