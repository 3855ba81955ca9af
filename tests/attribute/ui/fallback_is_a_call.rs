use breakerbox::prelude::*;

#[protected("vector_search", fallback = local())]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
