use std::rc::Rc;

use breakerbox::prelude::*;

struct Search;

impl Dependency for Search {
    type Request = String;
    type Response = usize;
    type Error = String;

    async fn call(&self, query: String, _: &CallContext) -> Result<usize, String> {
        Ok(query.len())
    }
}

fn search(runtime: &Runtime) {
    let _ = runtime.dependency("search").workers(|| Search).fallback(
        |query: String, _: &CallError<String>| async move {
            let length = Rc::new(query.len());
            std::future::ready(()).await;
            Ok::<_, String>(*length)
        },
    );
}

fn main() {
    let _ = search;
}
