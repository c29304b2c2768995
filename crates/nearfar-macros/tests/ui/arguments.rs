use nearfar_macros::cached;

#[cached(cache = users(), key = "{id}", timeout = "5m")]
async fn unknown_argument(id: u64) -> u64 {
    id
}

#[cached(cache = users(), key = "{id}", key = id)]
async fn given_twice(id: u64) -> u64 {
    id
}

#[cached(key = "{id}")]
async fn no_cache(id: u64) -> u64 {
    id
}

#[cached(cache = users())]
async fn no_key(id: u64, lang: String) -> String {
    format!("{id}{lang}")
}

#[cached(cache = users())]
async fn no_key_and_no_parameters() -> u64 {
    1
}

#[cached(cache = users(), key = "{id}", unless)]
async fn no_value(id: u64) -> u64 {
    id
}

#[cached(cache = users(), key = "{id}", ttl = 300)]
async fn no_unit(id: u64) -> u64 {
    id
}

#[cached(cache = users(), key = "{id}", ttl = "soon")]
async fn no_duration(id: u64) -> u64 {
    id
}

#[cached(cache = users(), key = "{id}", ttl = "0s")]
async fn no_time(id: u64) -> u64 {
    id
}

fn main() {}
