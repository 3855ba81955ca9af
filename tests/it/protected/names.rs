//! Unknown names in attributes are errors at the start.

use breakerbox::protected;
use breakerbox_actors::StartError;
use breakerbox_actors::testing::{TestRuntime, run_paused};

const LINE: u32 = line!() + 1;
#[protected("knowledge_grpah")]
async fn misspelt() -> Result<(), String> {
    Ok(())
}

struct Never<T>(T);

impl<T> Never<T> {
    /// Generic and never called; its name is checked all the same.
    #[protected("nobody_knows_it")]
    async fn called(&self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn item_21_the_attributes_unknown_names_are_told_at_the_start_all_at_once() {
    run_paused(async || {
        let runtime = TestRuntime::start().await;
        let builder = runtime.dependency("knowledge_graph");
        let _known = builder.start().await.unwrap();
        let StartError::UnknownNames { names } = runtime.start_protected().await.unwrap_err()
        else {
            panic!("another error");
        };
        let told = |name: &str| {
            let mut of_name = names.iter().filter(|unknown| unknown.name == name);
            let unknown = of_name.next().expect("it is told");
            unknown.to_string()
        };
        assert_eq!(
            told("knowledge_grpah"),
            format!(
                "\"knowledge_grpah\" at {}:{LINE}, did you mean \"knowledge_graph\"?",
                file!()
            )
        );
        let other = told("nobody_knows_it");
        assert!(other.starts_with("\"nobody_knows_it\" at tests/it/protected/names.rs:"));
        assert!(!other.contains("did you mean"), "{other}");
        let whole = StartError::UnknownNames {
            names: names.clone(),
        };
        assert!(whole.to_string().contains(&told("knowledge_grpah")));
        assert!(
            names
                .iter()
                .all(|unknown| unknown.name != "knowledge_graph")
        );
        assert!(runtime.status("dep").is_none(), "nothing was started");
        runtime.finish().await;
    });
    let _ = (misspelt, Never(1).0);
}
