use breakerbox::prelude::*;

#[protected("vector_search", idempotent)]
async fn search(found: &mut Vec<String>) -> Result<usize, String> {
    Ok(found.len())
}

fn main() {}
