//! What the log takes on the server, beside a stream of the same keys and nothing else.

use fred::interfaces::StreamsInterface;
use nearfar::{Cache, Error, Nearfar};
use nearfar_bench::Table;
use nearfar_testkit::RedisServer;

use crate::bare::client;

/// The log's default length.
const MESSAGES: u32 = 10_000;

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    let (cache, bare): (Cache<u32, u32>, _) = (nearfar.cache("log").build().await?, client(server).await);
    // Five digits, as many as the log keeps.
    for id in MESSAGES..2 * MESSAGES {
        cache.set(&id, id).await?;
        let id = id.to_string();
        bare.xadd::<(), _, _, _, _>("bare", false, None, "*", ("m", id)).await.expect("the server is up");
    }
    let pair = (per_entry(server, "bare").await, per_entry(server, "{log.0}#log").await);
    table.add("log, message of a key of 5 bytes", "that key in a stream", "B", &[pair]);
    Ok(())
}

async fn per_entry(server: &RedisServer, key: &str) -> f64 {
    let entries = server.command(&["XLEN", key]).await.int().expect("it is a stream");
    assert_eq!(entries, i64::from(MESSAGES));
    let bytes = server.command(&["MEMORY", "USAGE", key, "SAMPLES", "0"]).await.int();
    let bytes = u32::try_from(bytes.expect("the key exists")).expect("it is some megabytes at the most");
    f64::from(bytes) / f64::from(MESSAGES)
}
