use breakerbox::prelude::*;

#[protected("vector_search", fallback = local)]
async fn search(found: &mut Vec<String>) -> Result<usize, String> {
    Ok(found.len())
}

fn main() {}
