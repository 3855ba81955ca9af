use breakerbox::prelude::*;

fn search(runtime: &Runtime) {
    let _ = runtime.dependency("search").workers(|| "http://search.internal");
}

fn main() {
    let _ = search;
}
