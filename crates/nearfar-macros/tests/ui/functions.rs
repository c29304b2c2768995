use nearfar_macros::cached;

#[cached(cache = users(), key = "{id}")]
fn not_async(id: u64) -> u64 {
    id
}

#[cached(cache = users(), key = "{id}")]
async unsafe fn not_safe(id: u64) -> u64 {
    id
}

#[cached(cache = users(), key = "{id}")]
async fn generic<T: Send>(id: u64, _other: T) -> u64 {
    id
}

#[cached(cache = users(), key = "{id}")]
async fn sized<const N: usize>(id: u64) -> u64 {
    id
}

#[cached(cache = users(), key = "{id}")]
#[cached(cache = users(), key = "{id}")]
async fn cached_twice(id: u64) -> u64 {
    id
}

struct Service;

impl Service {
    #[cached(cache = users(), key = "{id}")]
    async fn changes(&mut self, id: u64) -> u64 {
        id
    }
}

#[cached(cache = users(), key = "all")]
struct NoFunction;

fn main() {}
