use breakerbox::prelude::*;

#[protected("vector_search")]
async fn search(_query: &str) {}

fn main() {}
