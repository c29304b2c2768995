use nearfar_macros::cached;

#[cached(cache = users(), key = "{name}")]
async fn generic(name: impl ToString) -> String {
    name.to_string()
}

#[cached(cache = users(), key = "{id}")]
async fn mutable(id: u64, seen: &mut u64) -> u64 {
    *seen += id;
    id
}

#[cached(cache = users(), key = "{id}")]
async fn borrowed_inside(id: u64, name: Option<&str>) -> Option<u64> {
    name.map(|_| id)
}

struct Names<'a>(&'a str);

#[cached(cache = users(), key = "{id}")]
async fn of_a_lifetime<'a>(id: u64, names: Names<'a>) -> Option<u64> {
    (!names.0.is_empty()).then_some(id)
}

#[cached(cache = users(), key = "{id}")]
async fn unnamed(id: u64, (first, _): (u64, u64)) -> u64 {
    id + first
}

fn main() {}
