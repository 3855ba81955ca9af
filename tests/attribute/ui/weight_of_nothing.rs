use breakerbox::prelude::*;

#[protected("vector_search", weight = 0)]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
