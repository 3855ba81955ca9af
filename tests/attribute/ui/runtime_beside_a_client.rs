use breakerbox::prelude::*;

#[protected(client = CLIENT, runtime = RUNTIME)]
async fn search(query: &str) -> Result<String, String> {
    Ok(query.to_owned())
}

fn main() {}
