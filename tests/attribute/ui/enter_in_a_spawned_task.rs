use breakerbox::prelude::*;

fn spawn(_: impl Future<Output = ()> + Send + 'static) {}

fn search(runtime: Runtime) {
    spawn(async move {
        let _here = runtime.enter();
        std::future::ready(()).await;
    });
}

fn main() {
    let _ = search;
}
