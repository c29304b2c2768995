//! One direction of one connection.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Flow;

const CHUNK: usize = 16 * 1024;
const HELD_CHUNKS: usize = 64;

/// Bytes that have arrived. No bytes: the end of the stream.
struct Chunk {
    bytes: Vec<u8>,
    arrived: Instant,
}

/// Reads on while bytes are held back, so that a delay is one of each chunk and not of the throughput.
pub(super) async fn pump(from: ReadHalf<'_>, to: WriteHalf<'_>, gate: watch::Receiver<Flow>) {
    let (held, waiting) = mpsc::channel(HELD_CHUNKS);
    tokio::join!(collect(from, held), deliver(waiting, to, gate));
}

async fn collect(mut from: ReadHalf<'_>, held: mpsc::Sender<Chunk>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        // A reset is passed on as an orderly end.
        let count = from.read(&mut buffer).await.unwrap_or(0);
        let chunk = Chunk { bytes: buffer[..count].to_vec(), arrived: Instant::now() };
        if held.send(chunk).await.is_err() || count == 0 {
            return;
        }
    }
}

async fn deliver(mut waiting: mpsc::Receiver<Chunk>, mut to: WriteHalf<'_>, mut gate: watch::Receiver<Flow>) {
    while let Some(chunk) = waiting.recv().await {
        if pass(&chunk, &mut to, &mut gate).await.is_err() {
            return;
        }
    }
}

async fn pass(chunk: &Chunk, to: &mut WriteHalf<'_>, gate: &mut watch::Receiver<Flow>) -> io::Result<()> {
    let mut rest = chunk.bytes.as_slice();
    while !rest.is_empty() {
        until_due(chunk, gate).await?;
        to.writable().await?;
        rest = &rest[offer(rest, to, gate)?..];
    }
    if chunk.bytes.is_empty() {
        until_due(chunk, gate).await?;
        to.shutdown().await?;
    }
    Ok(())
}

/// Writes what the socket takes. The guard on the flow is held meanwhile, so that whoever sets another
/// knows that nothing passes by the old one afterwards.
fn offer(bytes: &[u8], to: &WriteHalf<'_>, gate: &watch::Receiver<Flow>) -> io::Result<usize> {
    let flow = gate.borrow();
    if *flow == Flow::Hold {
        return Ok(0);
    }
    match to.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

async fn until_due(chunk: &Chunk, gate: &mut watch::Receiver<Flow>) -> io::Result<()> {
    loop {
        let due = match *gate.borrow_and_update() {
            Flow::Forward => return Ok(()),
            Flow::Hold => None,
            Flow::Delay(delay) => Some(chunk.arrived + delay),
        };
        if due.is_some_and(|due| due <= Instant::now()) {
            return Ok(());
        }
        tokio::select! {
            changed = gate.changed() => changed.map_err(io::Error::other)?,
            () = sleep_until(due.unwrap_or(chunk.arrived)), if due.is_some() => {}
        }
    }
}
