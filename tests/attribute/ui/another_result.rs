use breakerbox::prelude::*;

#[protected("vector_search")]
async fn search(query: &str) -> Option<String> {
    Some(query.to_owned())
}

fn main() {}
