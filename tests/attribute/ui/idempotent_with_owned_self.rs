use breakerbox::prelude::*;

struct Search(u32);

impl Search {
    #[protected("vector_search", idempotent)]
    async fn next(self) -> Result<u32, String> {
        Ok(self.0)
    }
}

fn main() {}
