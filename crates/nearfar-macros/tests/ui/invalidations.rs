use nearfar_macros::invalidates;

#[invalidates(cache = users())]
async fn nothing_to_invalidate(id: u64) -> Result<u64, String> {
    Ok(id)
}

#[invalidates(key = "{id}")]
async fn no_cache(id: u64) -> Result<u64, String> {
    Ok(id)
}

#[invalidates(cache = users(), key = "{id}", ttl = "5m")]
async fn unknown_argument(id: u64) -> Result<u64, String> {
    Ok(id)
}

#[invalidates(cache = users(), key = "{id}")]
async fn cannot_fail(id: u64) -> u64 {
    id
}

#[invalidates(cache = users(), key = "{id}")]
async fn returns_nothing(id: u64) {
    drop(id);
}

#[invalidates(cache = users(), key = "{id}")]
fn not_async(id: u64) -> Result<u64, String> {
    Ok(id)
}

#[invalidates(cache = users(), key = "{id}")]
async fn returns_some_type(id: u64) -> Result<impl ToString, String> {
    Ok(id)
}

#[invalidates(cache = users(), key = "{user}")]
async fn no_such_parameter(id: u64) -> Result<u64, String> {
    Ok(id)
}

fn main() {}
