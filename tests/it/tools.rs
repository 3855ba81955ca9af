//! Programs besides Rust that some tests need.

use std::path::PathBuf;

/// The first of these programs that is installed. If none is, prints a note and returns `None`, so
/// that the test is skipped; with `BREAKERBOX_TEST_REQUIRE_ALL=1`, as the gate sets it, panics.
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
