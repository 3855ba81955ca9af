use breakerbox::prelude::*;

#[protected("vector_search")]
fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
