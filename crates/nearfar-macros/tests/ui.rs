//! What the compiler says of what cannot be cached, and where.
//!
//! Only what the attributes themselves say, whose words do not change with the compiler. `TRYBUILD=overwrite` writes the
//! expected texts anew.

#[test]
fn each_mistake_is_told_in_words_and_at_its_place() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
