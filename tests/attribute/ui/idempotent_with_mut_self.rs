use breakerbox::prelude::*;

struct Search(u32);

impl Search {
    #[protected("vector_search", idempotent)]
    async fn next(&mut self) -> Result<u32, String> {
        self.0 += 1;
        Ok(self.0)
    }
}

fn main() {}
