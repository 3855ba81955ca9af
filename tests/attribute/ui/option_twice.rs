use breakerbox::prelude::*;

#[protected("vector_search", timeout = "2s", timeout = "3s")]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
