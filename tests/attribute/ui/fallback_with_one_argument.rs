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
    let _ = runtime
        .dependency("search")
        .workers(|| Search)
        .fallback(|query: String| async move { Ok::<_, String>(query.len()) });
}

fn main() {
    let _ = search;
}
