//! Old and new nodes of a service side by side, as while it is deployed.
//!
//! `cargo run --example rolling_deploy`

use std::convert::Infallible;
use std::error::Error;

use nearfar::{Cache, InProcess, Nearfar};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct UserV1 {
    name: String,
    #[serde(default)] // since it was meant to go
    fax: Option<String>,
}

/// `email` is new, `fax` is gone.
#[derive(Debug, Serialize, Deserialize)]
struct UserV2 {
    name: String,
    #[serde(default)] // what version 1 has written has none
    email: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let redis = InProcess::new(); // two processes on one Redis, but for this example
    let (old, new) = (Nearfar::builder().in_process(&redis), Nearfar::builder().in_process(&redis));
    shared(old.cache("users").build().await?, new.cache("users").build().await?).await?;
    // A price was in cents, and is in thousandths now: the same type, so nothing but the number tells them apart.
    let (cents, mills) = (old.cache("prices").schema(1), new.cache("prices").schema(2));
    apart(cents.build().await?, mills.build().await?).await
}

/// Each reads what the other writes.
async fn shared(v1: Cache<u64, UserV1>, v2: Cache<u64, UserV2>) -> Result<(), Box<dyn Error>> {
    v1.set(&1, UserV1 { name: "Ada".into(), fax: Some("555".into()) }).await?;
    v2.set(&2, UserV2 { name: "Bob".into(), email: Some("bob@example.com".into()) }).await?;
    let (ada, bob) = (v2.get(&1).await?.ok_or("missed")?, v1.get(&2).await?.ok_or("missed")?);
    println!("version 2 reads {ada:?}, version 1 reads {bob:?}");
    assert!(ada.email.is_none() && bob.fax.is_none());
    Ok(())
}

/// Neither reads what the other writes, and neither fails.
async fn apart(v1: Cache<u64, u32>, v2: Cache<u64, u32>) -> Result<(), Box<dyn Error>> {
    for _ in 0..10 {
        let price = v1.get_or_load(&1, |_| async { Ok::<_, Infallible>(250) }).await?;
        assert_eq!(*price, 250);
        let price = v2.get_or_load(&1, |_| async { Ok::<_, Infallible>(2500) }).await?;
        assert_eq!(*price, 2500);
    }
    // Each has it in L1 by now; what version 1 had stored was none for version 2, which is counted.
    println!("loads: {} and {}", v1.stats().loads, v2.stats().loads);
    assert_eq!((v1.stats().loads, v2.stats().loads, v2.stats().other_versions), (1, 1, 1));
    Ok(())
}
