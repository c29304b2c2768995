//! A node in a process of its own, which prints what L1 serves: `key revision start end`, times in microseconds; and
//! `round start` when it has asked for all keys since then.
//!
//! Arguments: the server's URL, the namespace, the number of keys, the bound in milliseconds, the zero of the clock.

use std::error::Error;
use std::io::{Write, stdout};
use std::str::FromStr;
use std::time::Duration;

use nearfar::{Cache, Nearfar};
use nearfar_testkit::Stopwatch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let nearfar = Nearfar::connect(&next::<String>(&mut args)?).await?;
    let builder = nearfar.cache(&next::<String>(&mut args)?);
    let (keys, bound) = (next(&mut args)?, Duration::from_millis(next(&mut args)?));
    let cache = builder.max_staleness(bound).build().await?;
    let clock = Stopwatch::since(next(&mut args)?);
    std::thread::spawn({
        let cache = cache.clone();
        // The output is closed when the test is over.
        move || print_l1(&cache, keys, clock).unwrap_or_else(|_| std::process::exit(0))
    });
    fill_l1(&cache, keys).await
}

fn next<T: FromStr<Err: Error + 'static>>(
    args: &mut impl Iterator<Item = String>,
) -> Result<T, Box<dyn Error>> {
    Ok(args.next().ok_or("too few arguments")?.parse()?)
}

/// On a thread, so that the first thing that happens in a process that goes on may be a read.
fn print_l1(cache: &Cache<u64, u64>, keys: u64, clock: Stopwatch) -> std::io::Result<()> {
    loop {
        let round = clock.micros();
        for key in 0..keys {
            let start = clock.micros();
            if let Some(revision) = cache.peek(&key) {
                writeln!(stdout(), "{key} {} {start} {}", *revision, clock.micros())?;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        writeln!(stdout(), "round {round}")?;
    }
}

async fn fill_l1(cache: &Cache<u64, u64>, keys: u64) -> ! {
    loop {
        for key in 0..keys {
            // A failure is no business of this program.
            let _ = cache.get(&key).await;
            nearfar_testkit::let_pass(Duration::from_millis(1)).await;
        }
    }
}
