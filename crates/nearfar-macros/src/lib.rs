//! The attributes of `nearfar`, which has them as `nearfar::cached` and `nearfar::invalidates` with its feature `macros`,
//! and documents them there.
//!
//! They expand to calls of nearfar's public API and to nothing else: what they do can be written by hand.

mod arguments;
mod attributes;
mod cached;
mod duration;
mod function;
mod invalidates;
mod key;
mod loader;
mod names;
mod parameter;
mod returns;
mod template;

use proc_macro::TokenStream;
use quote::quote;

/// Has an `async fn` ask a cache first. See `nearfar::cached`.
#[proc_macro_attribute]
pub fn cached(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(item, |item| cached::expand(arguments.into(), item))
}

/// Has an `async fn` invalidate what it has changed. See `nearfar::invalidates`.
#[proc_macro_attribute]
pub fn invalidates(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(item, |item| invalidates::expand(arguments.into(), item))
}

/// What cannot be expanded stands as it was beside the error, so that its callers are not reported as well.
fn expand(
    item: TokenStream,
    expansion: impl FnOnce(proc_macro2::TokenStream) -> syn::Result<proc_macro2::TokenStream>,
) -> TokenStream {
    let item = proc_macro2::TokenStream::from(item);
    let expanded = expansion(item.clone()).unwrap_or_else(|error| {
        let error = error.into_compile_error();
        quote!(#error #item)
    });
    expanded.into()
}
