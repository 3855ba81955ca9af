use breakerbox::prelude::*;

trait Search {
    #[protected("vector_search")]
    async fn search(&self, query: &str) -> Result<String, CallError<String>>;
}

fn main() {}
