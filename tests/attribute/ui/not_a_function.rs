use breakerbox::prelude::*;

#[protected("vector_search")]
struct Search;

fn main() {}
