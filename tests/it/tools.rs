//! Programs that some tests need besides Rust.

use std::path::PathBuf;

/// The first of these programs that there is. Without one the test says so and passes by, unless
/// the environment has `BREAKERBOX_TEST_REQUIRE_ALL=1`, as the gate does.
#[expect(clippy::print_stderr, reason = "a test that passes by says so")]
pub(crate) fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let all = names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = all.into_iter().find(|file| file.is_file());
    if found.is_none() {
        let missing = format!("none of {} is installed", names.join(", "));
        let required = std::env::var("BREAKERBOX_TEST_REQUIRE_ALL");
        assert_ne!(required.as_deref(), Ok("1"), "{missing}");
        eprintln!("passed by: {missing}");
    }
    found
}
