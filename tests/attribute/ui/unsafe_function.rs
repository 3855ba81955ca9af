use breakerbox::prelude::*;

#[protected("vector_search")]
async unsafe fn search() -> Result<u32, String> {
    Ok(1)
}

fn main() {}
