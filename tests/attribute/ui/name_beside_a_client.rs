use breakerbox::prelude::*;

#[protected("vector_search", client = CLIENT)]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
