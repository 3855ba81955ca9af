use breakerbox::prelude::*;

#[protected("vector_search")]
extern "C" fn search() -> Result<u32, String> {
    Ok(1)
}

fn main() {}
