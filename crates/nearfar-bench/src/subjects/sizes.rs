//! What an entry takes in Redis, and what it costs to write and read it, by what becomes of its payload.
//!
//! `cargo run --release -p nearfar-bench -- sizes`; see `docs/codecs.md` for what came out. Bytes are those of a server.
//! Times are those of a store in process, so that they are of the payload and not of the round trip: look at the
//! differences.

use nearfar::{Bytes, Cache, CacheBuilder, Codec, Compression, Error, Json, KeyRing, MessagePack, Nearfar};
use nearfar::{Postcard, RawBytes};
use nearfar_bench::{Grid, Table, micros};
use nearfar_testkit::{RedisServer, Stopwatch};
use serde::{Deserialize, Serialize};

const ROUNDS: u64 = 25;
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
    let bench = Bench {
        in_process: Nearfar::in_process(),
        on_server: Nearfar::connect(&server.url()).await?,
        server,
    };
    let random = &mut fastrand::Rng::with_seed(7);
    let mut orders = |count| (0..count).map(|_| Order::new(random)).collect::<Vec<_>>();
    let mut grid = Grid::new("bytes of an entry, us of a call", COLUMNS);
    for (count, name) in [(1, "order"), (2, "2 orders"), (4, "4 orders"), (8, "8 orders"), (80, "80 orders")]
    {
        bench.compressions(&mut grid, name, MessagePack, &orders(count)).await?;
    }
    bench.compressions(&mut grid, "80 orders, JSON", Json, &orders(80)).await?;
    bench.compressions(&mut grid, "80 orders, postcard", Postcard, &orders(80)).await?;
    let noise: Vec<u8> = (0..10_240).map(|_| random.u8(..)).collect();
    bench.compressions(&mut grid, "10 KiB of noise", RawBytes, &Bytes::from(noise)).await?;
    table.add_grid(grid);
    Ok(())
}

struct Bench<'a> {
    in_process: Nearfar,
    on_server: Nearfar,
    server: &'a RedisServer,
}

/// What is done to payloads.
type Treatment<'a, V> = &'a dyn Fn(CacheBuilder<u64, V>) -> CacheBuilder<u64, V>;

impl Bench<'_> {
    async fn compressions<V, C>(&self, grid: &mut Grid, name: &str, codec: C, value: &V) -> Result<(), Error>
    where
        V: Clone + Send + Sync + 'static,
        C: Codec<V> + Copy,
    {
        let encoded = figure(codec.encode(value).expect("it can be encoded").len());
        let ring = || KeyRing::new(1, [7; 32]);
        let (lz4, zstd) = (Compression::lz4().above(0), Compression::zstd().above(0));
        let cases: [(&str, Treatment<'_, V>); 5] = [
            ("", &|cache| cache),
            (", lz4", &|cache| cache.compression(lz4)),
            (", zstd", &|cache| cache.compression(zstd)),
            (", sealed", &|cache| cache.sealed(ring())),
            (", zstd, sealed", &|cache| cache.compression(zstd).sealed(ring())),
        ];
        let mut caches = Vec::new();
        for (how, treat) in cases {
            let case = format!("{name}{how}");
            let namespace = case.replace([' ', ','], "-");
            // L1 so small that every read goes to L2.
            let build = |node: &Nearfar| node.cache_with(&namespace, codec).l1_max_entries(1);
            let [stored, in_redis] = self.bytes(treat(build(&self.on_server)).build().await?, value).await?;
            let cache = treat(build(&self.in_process)).build().await?;
            caches.push((case, [encoded, stored, in_redis], cache));
        }
        for _ in 0..ROUNDS {
            for (case, bytes, cache) in &caches {
                let figures = [&bytes[..], &times(cache, value).await?].concat();
                grid.add(case, figures);
            }
        }
        Ok(())
    }

    async fn bytes<V>(&self, cache: Cache<u64, V>, value: &V) -> Result<[f64; 2], Error>
    where
        V: Clone + Send + Sync + 'static,
    {
        cache.set(&1, value.clone()).await?;
        let key = format!("{{{}.0}}:1", cache.namespace());
        Ok([self.number(&["STRLEN", &key]).await, self.number(&["MEMORY", "USAGE", &key]).await])
    }

    async fn number(&self, command: &[&str]) -> f64 {
        let number = self.server.command(command).await.int().and_then(|number| usize::try_from(number).ok());
        figure(number.expect("it answers with a number"))
    }
}

/// Of a call: to set, and to get.
async fn times<V>(cache: &Cache<u64, V>, value: &V) -> Result<[f64; 2], Error>
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
    Ok([set, micros(watch)].map(|micros| micros / figure(usize::try_from(CALLS).expect("a few"))))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figure(number: usize) -> f64 {
    number as f64
}
