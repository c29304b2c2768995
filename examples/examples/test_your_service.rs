//! Your service's unit tests: several nodes in one process, outages on command, no Redis and no waiting.
//!
//! Run them with `cargo test --example test_your_service`.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use nearfar::{Cache, Error, InProcess, Nearfar, Outcome};

/// In place of your database, which all nodes share.
type Database = Arc<Mutex<HashMap<u64, String>>>;
const UNHURT: &str = "nobody panics with the lock in hand";

/// One node of a service that knows names. It takes a `Nearfar`, and neither knows nor cares what is behind it.
struct Names {
    cache: Cache<u64, String>,
    database: Database,
}

impl Names {
    async fn new(nearfar: &Nearfar, database: Database) -> Result<Self, Error> {
        Ok(Self { cache: nearfar.cache("names").build().await?, database })
    }

    async fn name(&self, id: u64) -> Result<String, Error> {
        let database = Arc::clone(&self.database);
        let load = async move |id| {
            Ok::<_, Infallible>(database.lock().expect(UNHURT).get(&id).cloned().unwrap_or_default())
        };
        Ok(self.cache.get_or_load(&id, load).await?.to_string())
    }

    /// `Queued` means: it is in the database, and other nodes will know of it when the store is back.
    async fn rename(&self, id: u64, name: &str) -> Result<Outcome, Error> {
        self.database.lock().expect(UNHURT).insert(id, name.to_owned());
        self.cache.invalidate(&id).await
    }
}

/// Two nodes, one database, and the store between them for the test to disturb.
async fn two_nodes() -> Result<(Names, Names, InProcess), Error> {
    let (shared, database) = (InProcess::new(), Database::default());
    let here = Names::new(&Nearfar::builder().in_process(&shared), Arc::clone(&database)).await?;
    let there = Names::new(&Nearfar::builder().in_process(&shared), database).await?;
    Ok((here, there, shared))
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (here, there, _shared) = two_nodes().await?;
    here.rename(1, "Ada").await?;
    println!("the other node says {}; now see the tests of this file", there.name(1).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The default of `CacheBuilder::max_staleness`.
    const BOUND: Duration = Duration::from_secs(5);

    /// On paused time, five seconds pass at once: `advance` is all the waiting there is.
    #[tokio::test(start_paused = true)]
    async fn a_new_name_is_seen_on_the_other_node_within_the_bound_although_its_message_is_lost() {
        let (here, there, shared) = two_nodes().await.unwrap();
        here.rename(1, "Ada").await.unwrap();
        assert_eq!(there.name(1).await.unwrap(), "Ada");

        shared.cut_bus();
        here.rename(1, "Ada Lovelace").await.unwrap();
        tokio::time::advance(BOUND).await;
        assert_eq!(there.name(1).await.unwrap(), "Ada Lovelace");
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_told_while_the_store_is_down() {
        let (here, _there, shared) = two_nodes().await.unwrap();
        here.rename(1, "Ada").await.unwrap();
        shared.cut_store();
        assert_eq!(here.name(1).await.unwrap(), "Ada");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renaming_while_the_store_is_down_is_heard_of_when_it_is_back() {
        let (here, there, shared) = two_nodes().await.unwrap();
        here.rename(1, "Ada").await.unwrap();
        assert_eq!(there.name(1).await.unwrap(), "Ada");

        shared.cut_store();
        assert_eq!(here.rename(1, "Ada Lovelace").await.unwrap(), Outcome::Queued);
        assert_eq!(here.name(1).await.unwrap(), "Ada Lovelace", "on the node that renamed it");
        shared.heal_store();
        while here.cache.stats().outbox_keys > 0 {
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        tokio::time::advance(BOUND).await;
        assert_eq!(there.name(1).await.unwrap(), "Ada Lovelace");
    }
}
