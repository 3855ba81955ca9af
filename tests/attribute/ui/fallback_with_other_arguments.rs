use breakerbox::prelude::*;

async fn local(query: u32) -> Result<String, String> {
    Ok(query.to_string())
}

#[protected("vector_search", fallback = local)]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
