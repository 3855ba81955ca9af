use breakerbox::prelude::*;

#[protected("vector_search", fallback = |a, b, c| async { Ok::<_, String>(a) })]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
