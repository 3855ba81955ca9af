use breakerbox::prelude::*;

struct Query(String);

#[protected("vector_search", idempotent)]
async fn search(query: Query) -> Result<String, String> {
    Ok(query.0)
}

fn main() {}
