use nearfar_macros::cached;

#[cached(cache = users(), key = "{user}:{lang}")]
async fn no_such_parameter(id: u64, lang: String) -> String {
    format!("{id}{lang}")
}

#[cached(cache = users(), key = "{}")]
async fn no_name(id: u64) -> u64 {
    id
}

#[cached(cache = users(), key = "{tenant.id}")]
async fn a_field(tenant: u64) -> u64 {
    tenant
}

#[cached(cache = users(), key = "{id")]
async fn unclosed(id: u64) -> u64 {
    id
}

#[cached(cache = users(), key = "all", tags = ["users", "user:{id}"])]
async fn no_such_parameter_of_a_tag() -> u64 {
    1
}

fn main() {}
