//! A cache of your own type: load, read again, overwrite, invalidate.
//!
//! ```text
//! cargo run --example quick_start                             # in process, without Redis
//! cargo run --example quick_start -- redis://127.0.0.1:6379   # run it twice: the second finds the values of the first
//! ```

use std::time::Duration;

use nearfar::{Cache, Nearfar};
use serde::{Deserialize, Serialize};

/// Anything that serde can write and read. Fields go by name, so a later version may add an optional one.
#[derive(Debug, Serialize, Deserialize)]
struct User {
    name: String,
    logins: u32,
}

/// The slow part, in place of a query. Any error type will do.
async fn from_database(id: u64) -> Result<User, std::io::Error> {
    println!("  (the database is asked for user {id})");
    Ok(User { name: "Ada".to_owned(), logins: 1 })
}

#[tokio::main]
async fn main() -> Result<(), nearfar::Error> {
    // One `Nearfar` per process: it holds the connections that all its caches share.
    let nearfar = match std::env::args().nth(1) {
        Some(url) => Nearfar::connect(&url).await?,
        None => Nearfar::in_process(),
    };
    // One cache per type. The name is the keyspace: every process that uses it shares the entries.
    let users: Cache<u64, User> = nearfar.cache("users").ttl(Duration::from_secs(300)).build().await?;

    let user = users.get_or_load(&42, from_database).await?;
    println!("first read:  {} out of {:?}", user.name, user.tier());

    let user = users.get_or_load(&42, from_database).await?;
    println!("second read: {} out of {:?}, {:?} old", user.name, user.tier(), user.age());

    // You have the new value: `set` gives it to everybody. An entry derefs to the value.
    users.set(&42, User { name: "Ada Lovelace".to_owned(), logins: user.logins + 1 }).await?;
    let user = users.get_or_load(&42, from_database).await?;
    println!("after set:   {}, {} logins, out of {:?}", user.name, user.logins, user.tier());

    // You only know that it changed: `invalidate`, after the database has committed. Whoever reads next loads.
    users.invalidate(&42).await?;
    let user = users.get_or_load(&42, from_database).await?;
    println!("invalidated: {} out of {:?}", user.name, user.tier());

    nearfar.shutdown().await;
    Ok(())
}
