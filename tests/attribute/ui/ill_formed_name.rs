use breakerbox::prelude::*;

#[protected("Vector Search")]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
