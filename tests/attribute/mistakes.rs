//! What the compiler says to each mistake in an attribute, and to mistakes with closures and scopes,
//! and where.

#[test]
fn each_mistake_is_told_at_its_place() {
    trybuild::TestCases::new().compile_fail("ui/*.rs");
}
