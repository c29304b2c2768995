//! Which of a function's attributes go to which of the functions that it becomes.

use syn::Attribute;

/// Those of the function that asks the cache: all but those that only its body can meet.
pub(crate) fn outside(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| !attribute.path().is_ident("expect"))
}

/// Those of the function that has the body: lint levels.
pub(crate) fn inside(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    let levels = ["allow", "expect", "warn", "deny", "forbid"];
    attributes.iter().filter(move |attribute| levels.iter().any(|name| attribute.path().is_ident(name)))
}

/// Whether one is of this name, by whatever path.
pub(crate) fn named<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a Attribute> {
    attributes
        .iter()
        .find(|attribute| attribute.path().segments.last().is_some_and(|last| last.ident == name))
}
