//! Runs a server as tests get it, until its standard input ends: for a look by hand, and for the tests that kill a
//! process which holds servers. With the argument `cluster` or `sentinels`, runs those.

use std::io::{self, Read};

use nearfar_testkit::{RedisCluster, RedisServer, Sentinels};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => {
            let server = RedisServer::start().await;
            hold(&server.url())
        }
        Some("cluster") => {
            let cluster = RedisCluster::start().await;
            hold(&cluster.url())
        }
        Some("sentinels") => {
            let sentinels = Sentinels::start().await;
            hold(&sentinels.url())
        }
        Some(other) => Err(io::Error::other(format!("{other} is neither cluster nor sentinels"))),
    }
}

fn hold(url: &str) -> io::Result<()> {
    println!("{url}");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
