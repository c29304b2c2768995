//! Functions with a cache before them: `#[cached]`, and `#[invalidates]` where the data changes.
//!
//! ```text
//! cargo run --example cached_functions
//! ```

use std::sync::Arc;

use nearfar::{Cache, Nearfar, cached, invalidates};
use tokio::sync::Mutex;

/// Cheap to clone, as a cached method needs it: a load may outlive the call that began it, and gets a clone of its own.
#[derive(Clone)]
struct Shop {
    prices: Cache<String, u32>,
    database: Arc<Mutex<u32>>,
}

impl Shop {
    #[cached(cache = self.prices, key = "{article}:{currency}", ttl = "5m", unless = article == 0)]
    async fn price(&self, article: u64, currency: &str) -> Result<u32, nearfar::Error> {
        println!("  (the database is asked for article {article} in {currency})");
        Ok(*self.database.lock().await)
    }

    #[invalidates(cache = self.prices, key = "{article}:{currency}")]
    async fn change_price(&self, article: u64, currency: &str, price: u32) -> Result<(), nearfar::Error> {
        println!("  (article {article} costs {price} {currency} from now on)");
        *self.database.lock().await = price;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), nearfar::Error> {
    let nearfar = Nearfar::in_process();
    let shop = Shop { prices: nearfar.cache("prices").build().await?, database: Arc::new(Mutex::new(30)) };

    println!("first call:  {}", shop.price(7, "EUR").await?);
    println!("second call: {}", shop.price(7, "EUR").await?);

    shop.change_price(7, "EUR", 25).await?;
    println!("changed:     {}", shop.price(7, "EUR").await?);

    // Of each cached function there are three more: without the cache, one that invalidates, and its key.
    println!("uncached:    {}", shop.price_uncached(7, "EUR").await?);
    shop.price_invalidate(7, "EUR").await?;
    shop.prices.set(&Shop::price_key(7, "EUR"), 20).await?;
    println!("set:         {}", shop.price(7, "EUR").await?);
    Ok(())
}
