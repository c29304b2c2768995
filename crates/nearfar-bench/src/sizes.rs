//! What an entry takes in Redis and costs, by how its payload is written.
//!
//! `cargo run --release -p nearfar-bench -- sizes`; see `docs/codecs.md` for what came out.

use nearfar::{Bytes, Cache, CacheBuilder, Codec, Compression, Error, Json, KeyRing, MessagePack, Nearfar};
use nearfar::{Postcard, RawBytes};
use nearfar_testkit::{RedisServer, Stopwatch};
use serde::{Deserialize, Serialize};

use crate::bare::micros;
use crate::grid::Grid;
use crate::table::Table;

/// How the rounds of a case are spread: a pause of the machine does not hit all of one.
const ROUNDS: u64 = 15;
const CALLS: u64 = 200;
const COLUMNS: &[&str] = &["encoded", "stored", "in Redis", "us/set", "us/get"];

/// Of what a service may have: words, numbers, addresses, no two the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    customer: String,
    email: String,
    city: String,
    status: String,
    cents: u32,
}

impl Order {
    fn new(random: &mut fastrand::Rng) -> Self {
        let first = ["Ada", "Grace", "Edsger", "Barbara", "Donald", "Tony", "Frances", "Niklaus"];
        let cities = ["Berlin", "Lagos", "Lima", "Osaka", "Pune", "Quito", "Turin", "Zagreb"];
        let states = ["open", "paid", "shipped", "returned"];
        let customer = format!("{} {}", first[random.usize(..8)], random.u16(..));
        Self {
            id: random.u64(..1 << 40),
            email: format!("{}@example.com", customer.replace(' ', ".").to_lowercase()),
            customer,
            city: cities[random.usize(..8)].to_owned(),
            status: states[random.usize(..4)].to_owned(),
            cents: random.u32(..1_000_000),
        }
    }
}

pub(crate) async fn measure(table: &mut Table, server: &RedisServer) -> Result<(), Error> {
    let nearfar = Nearfar::connect(&server.url()).await?;
    let bench = Bench { nearfar, server };
    let random = &mut fastrand::Rng::with_seed(7);
    let mut grid = Grid::new("bytes of an entry, microseconds of a call", COLUMNS);
    let orders = [(1, "order"), (2, "2 orders"), (4, "4 orders"), (8, "8 orders"), (80, "80 orders")];
    for (count, name) in orders {
        let value: Vec<_> = (0..count).map(|_| Order::new(random)).collect();
        bench.compressions(&mut grid, name, MessagePack, &value).await?;
    }
    let value: Vec<_> = (0..80).map(|_| Order::new(random)).collect();
    bench.compressions(&mut grid, "80 orders, JSON", Json, &value).await?;
    bench.compressions(&mut grid, "80 orders, postcard", Postcard, &value).await?;
    let noise: Vec<u8> = (0..10_240).map(|_| random.u8(..)).collect();
    bench.compressions(&mut grid, "10 KiB of noise", RawBytes, &Bytes::from(noise)).await?;
    table.add_grid(grid);
    Ok(())
}

struct Bench<'a> {
    nearfar: Nearfar,
    server: &'a RedisServer,
}

impl Bench<'_> {
    async fn compressions<V, C>(&self, grid: &mut Grid, name: &str, codec: C, value: &V) -> Result<(), Error>
    where
        V: Clone + Send + Sync + 'static,
        C: Codec<V> + Copy,
    {
        let encoded = codec.encode(value).expect("it can be encoded").len();
        let ring = || KeyRing::new(1, [7; 32]);
        let (lz4, zstd) = (Compression::lz4().above(0), Compression::zstd().above(0));
        let cases: [(&str, &dyn Fn(CacheBuilder<u64, V>) -> CacheBuilder<u64, V>); 5] = [
            ("", &|cache| cache),
            (", lz4", &|cache| cache.compression(lz4)),
            (", zstd", &|cache| cache.compression(zstd)),
            (", sealed", &|cache| cache.sealed(ring())),
            (", zstd, sealed", &|cache| cache.compression(zstd).sealed(ring())),
        ];
        let mut caches = Vec::new();
        for (how, set) in cases {
            let namespace = format!("{name}{how}").replace([' ', ','], "-");
            // L1 so small that every read goes to L2.
            let builder = self.nearfar.cache_with(&namespace, codec).l1_max_entries(1);
            caches.push((format!("{name}{how}"), set(builder).build().await?));
        }
        for _ in 0..ROUNDS {
            for (case, cache) in &caches {
                grid.add(case, self.round(cache, encoded, value).await?);
            }
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    async fn round<V>(&self, cache: &Cache<u64, V>, encoded: usize, value: &V) -> Result<Vec<f64>, Error>
    where
        V: Clone + Send + Sync + 'static,
    {
        let watch = Stopwatch::start();
        for key in 0..CALLS {
            cache.set(&key, value.clone()).await?;
        }
        let set = micros(watch);
        let watch = Stopwatch::start();
        for key in 0..CALLS {
            assert!(cache.get(&key).await?.is_some());
        }
        let get = micros(watch);
        let key = format!("{{{}.0}}:1", cache.namespace());
        let [stored, in_redis] =
            [self.number(&["STRLEN", &key]).await, self.number(&["MEMORY", "USAGE", &key]).await];
        Ok(vec![encoded as f64, stored, in_redis, set / CALLS as f64, get / CALLS as f64])
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    async fn number(&self, command: &[&str]) -> f64 {
        self.server.command(command).await.int().expect("it answers with a number") as f64
    }
}
