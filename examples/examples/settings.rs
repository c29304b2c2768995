//! Settings out of a file, some of them overridden by the environment, and what is in force after that.
//!
//! ```text
//! cargo run --example settings
//! SHOP_PRICES_TTL=10m cargo run --example settings
//! SHOP_PRICES_TLL=10m cargo run --example settings   # an error that says so
//! cargo run --example settings -- my.toml
//! ```

use std::error::Error as StdError;

use nearfar::{Cache, CacheConfig, Nearfar, NearfarConfig};

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/shop.toml");

/// The file that is named, with its name in the error if there is one.
fn read(file: &str) -> Result<NearfarConfig, String> {
    let text = std::fs::read_to_string(file).map_err(|cause| format!("{file}: {cause}"))?;
    toml::from_str(&text).map_err(|problem| format!("{file}: {problem}"))
}

async fn node(config: &NearfarConfig) -> Result<Nearfar, nearfar::Error> {
    if config.url.is_some() { config.connect().await } else { Ok(Nearfar::in_process()) }
}

/// The file goes over what the program says, and the environment over the file.
async fn prices(nearfar: &Nearfar, config: &NearfarConfig) -> Result<Cache<u64, u64>, nearfar::Error> {
    let file = config.cache("prices")?;
    let environment = CacheConfig::from_env("SHOP_PRICES_")?;
    nearfar.cache("prices").l1_max_entries(1_000).config(file).config(&environment).build().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let config = read(&std::env::args().nth(1).unwrap_or_else(|| SHOP.to_owned()))?;
    let nearfar = node(&config).await?;
    let prices = prices(&nearfar, &config).await?;
    println!("# In force for {}:\n{}", prices.namespace(), toml::to_string(&prices.config())?);
    nearfar.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_file_goes_over_the_program_and_the_defaults_are_under_both() {
        let config = read(SHOP).unwrap();
        let in_force = prices(&node(&config).await.unwrap(), &config).await.unwrap().config();
        assert_eq!(in_force.ttl, Some(Duration::from_secs(3600)), "the file");
        assert_eq!(in_force.l1_max_entries, Some(1_000), "the program");
        assert_eq!(in_force.max_staleness, Some(Duration::from_secs(5)), "the default");
        assert_eq!(config.cache("stock").unwrap(), &CacheConfig::default());
    }

    #[test]
    fn a_mistake_is_told_with_the_name_of_the_file() {
        let told = read(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap_err();
        assert!(told.contains("/Cargo.toml: ") && told.contains("unknown field `"), "{told}");
    }
}
