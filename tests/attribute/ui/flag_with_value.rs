use breakerbox::prelude::*;

#[protected("vector_search", idempotent = true)]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
