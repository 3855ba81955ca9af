use std::rc::Rc;

use breakerbox::prelude::*;

struct Search(Rc<str>);

impl Dependency for Search {
    type Request = ();
    type Response = usize;
    type Error = String;

    async fn call(&self, (): (), _: &CallContext) -> Result<usize, String> {
        Ok(self.0.len())
    }
}

fn search(runtime: &Runtime) {
    let url: Rc<str> = Rc::from("http://search.internal");
    let _ = runtime.dependency("search").workers(move || Search(Rc::clone(&url)));
}

fn main() {
    let _ = search;
}
