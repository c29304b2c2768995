//! Two nodes: one changes a value, and the copy in the other's memory goes.
//!
//! ```text
//! cargo run --example two_nodes
//! ```

use nearfar::{Cache, InProcess, Nearfar, Tier};

#[tokio::main]
async fn main() -> Result<(), nearfar::Error> {
    // Stands for the Redis that two machines would share. Each node has a memory, and hears messages, of its own.
    let shared = InProcess::new();
    let here: Cache<String, u32> = Nearfar::builder().in_process(&shared).cache("prices").build().await?;
    let there: Cache<String, u32> = Nearfar::builder().in_process(&shared).cache("prices").build().await?;

    here.set("apple", 30).await?;
    for _ in 0..2 {
        // The first read takes the value from what both share into memory, where the second finds it.
        let price = there.get("apple").await?.expect("it was just set");
        println!("there: {} cents, out of {:?}", *price, price.tier());
    }

    println!("here:  sets 35 cents");
    here.set("apple", 35).await?;

    // `set` does not wait for the other nodes. This one may serve its copy until the message has arrived; at most
    // for `max_staleness`, whatever happens to the message.
    let mut price = there.get("apple").await?.expect("it never expires here");
    let mut stale = 0;
    while *price != 35 {
        assert_eq!(price.tier(), Tier::L1, "what is out of date can only be a copy in memory");
        stale += 1;
        tokio::task::yield_now().await;
        price = there.get("apple").await?.expect("it never expires here");
    }
    println!("there: {} cents, out of {:?}, after {stale} stale reads", *price, price.tier());

    let propagation = there.stats().propagation;
    println!(
        "there: {} messages heard; the slowest had dropped the old copy after {:?}",
        propagation.messages, propagation.max
    );
    Ok(())
}
