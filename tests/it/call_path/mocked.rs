//! Mock of a user's dependency.

use breakerbox_actors::testing::{TestRuntime, run_paused};
use breakerbox_actors::{CallContext, Dependency};
use mockall::mock;
use mockall::predicate::{always, eq};

mock! {
    Search {}

    impl Dependency for Search {
        type Request = &'static str;
        type Response = usize;
        type Error = String;

        async fn call(&self, request: &'static str, call: &CallContext) -> Result<usize, String>;
    }
}

#[test]
fn call_2_a_mocked_dependency_is_called_as_it_expects() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let make = || {
            let mut search = MockSearch::new();
            search
                .expect_call()
                .with(eq("actors"), always())
                .times(1)
                .returning(|request, _| Ok(request.len()));
            search
                .expect_call()
                .with(eq("nothing"), always())
                .returning(|_, call| Err(format!("{} has nothing", call.dependency())));
            search
        };
        let builder = runtime.dependency("search").workers(make);
        let client = builder.start().await.unwrap();
        assert_eq!(client.ask("actors").await.unwrap().value, 6);
        let error = client.ask("nothing").await.unwrap_err();
        assert_eq!(error.into_failed().unwrap(), "search has nothing");
        runtime.finish().await;
    });
}
