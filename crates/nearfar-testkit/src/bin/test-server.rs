//! Runs a server as tests get it, until its standard input ends: for a look by hand, and for the test
//! that kills a process which holds a server.

use std::io::{self, Read};

use nearfar_testkit::RedisServer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let server = RedisServer::start().await;
    println!("{}", server.url());
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
