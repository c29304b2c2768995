//! A node in a process of its own whose callers all want one key, `cold`, which is to be loaded once in the cluster.
//!
//! Arguments: the server's URL, the number of callers, for how many milliseconds a claim holds, how many a load takes, and
//! the value that it loads. Prints `ready`; begins when there is something under the key `start`; prints `loads` when its
//! loader is asked, and `done` with the values that its callers got, each once.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;
use std::str::FromStr;
use std::time::Duration;

use nearfar::{Cache, Nearfar};
use nearfar_testkit::let_pass;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let nearfar = Nearfar::connect(&next::<String>(&mut args)?).await?;
    let callers: usize = next(&mut args)?;
    let builder = nearfar.cache("claims").cluster_single_flight(Duration::from_millis(next(&mut args)?));
    let cache: Cache<String, u64> = builder.build().await?;
    let (takes, value) = (Duration::from_millis(next(&mut args)?), next(&mut args)?);
    println!("ready");
    while cache.get("start").await?.is_none() {
        let_pass(Duration::from_millis(1)).await;
    }
    let load = move |_| async move {
        println!("loads");
        let_pass(takes).await;
        Ok::<u64, Infallible>(value)
    };
    let call =
        async |cache: &Cache<String, u64>| Ok::<_, nearfar::Error>(*cache.get_or_load("cold", load).await?);
    let values: BTreeSet<_> =
        futures_util::future::try_join_all((0..callers).map(|_| call(&cache))).await?.into_iter().collect();
    println!("done {values:?}");
    // Until the test is over.
    std::future::pending().await
}

fn next<T: FromStr<Err: Error + 'static>>(
    args: &mut impl Iterator<Item = String>,
) -> Result<T, Box<dyn Error>> {
    Ok(args.next().ok_or("too few arguments")?.parse()?)
}
