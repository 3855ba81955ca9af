use breakerbox::prelude::*;

#[protected("vector_search", timout = "2s")]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
