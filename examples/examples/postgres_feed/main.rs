//! A database tells the cache what has changed, so that whoever writes to it need not know of the cache.
//!
//! ```text
//! cargo run --example postgres_feed                                  # on a PostgreSQL of its own
//! cargo run --example postgres_feed -- postgresql://user@host/db     # on yours, in which it makes a table `users`
//! ```
//!
//! `users.sql` has the triggers, `feed.rs` listens to them. The tests show that nothing is missed.

mod feed;

use std::error::Error;
use std::sync::Arc;

use nearfar::{Cache, InProcess, Nearfar};
use nearfar_testkit::{PostgresServer, eventually};
use tokio_postgres::{Client, NoTls};

use feed::Notifications;

/// The channel that the triggers of `users.sql` notify.
const CHANNEL: &str = "users";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let given = std::env::args().nth(1);
    let own = if given.is_none() { Some(PostgresServer::start().await) } else { None };
    let url = given.or_else(|| own.as_ref().map(PostgresServer::url)).expect("one of them");

    let database = Arc::new(connected(&url).await?);
    database.batch_execute(include_str!("users.sql")).await?;
    database.execute("INSERT INTO users VALUES (42, 'Ada')", &[]).await?;

    // Two nodes; `InProcess` stands for their Redis. That one follows is enough.
    let shared = InProcess::new();
    let here: Cache<i64, String> = Nearfar::builder().in_process(&shared).cache("users").build().await?;
    let there: Cache<i64, String> = Nearfar::builder().in_process(&shared).cache("users").build().await?;
    let following = here.follow(Notifications::new(&url, CHANNEL)?);
    eventually("the feed listens", async || following.stats().everything == 1).await;

    println!("there: {:?}", name(&there, &database, 42).await?);
    println!("somebody: UPDATE users SET name = 'Ada Lovelace' WHERE id = 42");
    database.execute("UPDATE users SET name = 'Ada Lovelace' WHERE id = 42", &[]).await?;
    eventually("the change is told", async || following.stats().keys >= 1).await;
    eventually("the copy goes", async || there.peek(&42).is_none()).await;
    println!("there: {:?}", name(&there, &database, 42).await?);
    Ok(())
}

async fn connected(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// What a service does: the loader asks the database.
async fn name(
    users: &Cache<i64, String>,
    database: &Arc<Client>,
    id: i64,
) -> Result<Option<String>, nearfar::Error> {
    let database = Arc::clone(database);
    let load = move |id: i64| async move {
        let row = database.query_opt("SELECT name FROM users WHERE id = $1", &[&id]).await?;
        Ok::<_, tokio_postgres::Error>(row.map(|row| row.get::<_, String>(0)))
    };
    Ok(users.get_or_load_optional(&id, load).await?.map(|name| name.to_string()))
}

#[cfg(test)]
mod tests {
    use nearfar::Following;
    use nearfar_testkit::{Cut, FaultProxy};

    use super::*;

    struct World {
        database: Arc<Client>,
        /// The feed's way to the database.
        way: FaultProxy,
        here: Cache<i64, String>,
        there: Cache<i64, String>,
        following: Following,
        _server: PostgresServer,
    }

    impl World {
        async fn new() -> Self {
            let server = PostgresServer::start().await;
            let database = Arc::new(connected(&server.url()).await.unwrap());
            database.batch_execute(include_str!("users.sql")).await.unwrap();
            database
                .batch_execute("INSERT INTO users SELECT n, 'old' FROM generate_series(1, 2000) n")
                .await
                .unwrap();
            let way = FaultProxy::start(server.port()).await;
            let url = format!("postgresql://postgres@127.0.0.1:{}/postgres", way.port());
            let shared = InProcess::new();
            let node = async || Nearfar::builder().in_process(&shared).cache("users").build().await.unwrap();
            let (here, there): (Cache<i64, String>, Cache<i64, String>) = (node().await, node().await);
            let following = here.follow(Notifications::new(&url, CHANNEL).unwrap());
            let world = Self { database, way, here, there, following, _server: server };
            world.listens(1).await;
            world
        }

        /// Waits until the feed has begun to listen so many times.
        async fn listens(&self, times: u64) {
            eventually("the feed listens", async || self.following.stats().everything >= times).await;
        }

        async fn sql(&self, statement: &str) {
            self.database.batch_execute(statement).await.unwrap();
        }

        /// Has both nodes cache what the database has of these rows.
        async fn warm(&self, ids: std::ops::Range<i64>) {
            for id in ids {
                for users in [&self.here, &self.there] {
                    name(users, &self.database, id).await.unwrap();
                }
            }
        }

        /// Waits until both nodes say of a row what the database does.
        async fn shows(&self, id: i64, expected: Option<&str>) {
            for users in [&self.here, &self.there] {
                eventually("the cache says what the database does", async || {
                    name(users, &self.database, id).await.unwrap().as_deref() == expected
                })
                .await;
            }
        }
    }

    #[tokio::test]
    async fn whatever_changes_a_row_is_seen_on_all_nodes() {
        let world = World::new().await;
        world.warm(1..9).await;
        world.sql("UPDATE users SET name = 'new' WHERE id = 1").await;
        world.shows(1, Some("new")).await;
        world.sql("DELETE FROM users WHERE id = 2").await;
        world.shows(2, None).await;
        world.sql("BEGIN; UPDATE users SET id = 3000 WHERE id = 3; COMMIT").await;
        world.shows(3, None).await;
        world.shows(3000, Some("old")).await;
        world.shows(4, Some("old")).await;
        world.sql("TRUNCATE users").await;
        world.shows(4, None).await;
    }

    #[tokio::test]
    async fn what_is_rolled_back_costs_nothing() {
        let world = World::new().await;
        world.warm(1..3).await;
        world.sql("BEGIN; UPDATE users SET name = 'never' WHERE id = 1; ROLLBACK").await;
        world.sql("UPDATE users SET name = 'new' WHERE id = 2").await;
        world.shows(2, Some("new")).await;
        assert_eq!(world.following.stats().keys, 1, "the notifications are in order");
        assert!(world.there.peek(&1).is_some());
    }

    #[tokio::test]
    async fn many_rows_of_one_statement_are_all_seen() {
        let world = World::new().await;
        world.warm(1..30).await;
        world.sql("UPDATE users SET name = 'new'").await;
        for id in 1..30 {
            world.shows(id, Some("new")).await;
        }
        eventually("all are told", async || world.following.stats().keys == 2000).await;
        assert_eq!(world.following.stats().everything, 1, "no more than at the start");
    }

    /// PostgreSQL keeps no notifications for a listener that is away.
    #[tokio::test]
    async fn what_is_changed_while_the_feed_is_cut_off_is_seen_when_it_is_back() {
        let world = World::new().await;
        world.warm(1..3).await;
        world.way.refuse().await;
        world.way.cut(Cut::Reset).await;
        world.sql("UPDATE users SET name = 'new' WHERE id = 1").await;
        world.way.accept().await;
        world.listens(2).await;
        world.shows(1, Some("new")).await;
        world.sql("UPDATE users SET name = 'new' WHERE id = 2").await;
        world.shows(2, Some("new")).await;
    }
}
