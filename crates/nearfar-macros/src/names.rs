//! Identifiers in tokens.

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;

/// Whether an identifier of this name stands anywhere in the tokens.
pub(crate) fn mentions(tokens: &impl ToTokens, name: &Ident) -> bool {
    flat(tokens.to_token_stream()).any(|token| matches!(token, TokenTree::Ident(ident) if ident == *name))
}

/// All tokens, those in brackets included.
pub(crate) fn flat(tokens: TokenStream) -> Box<dyn Iterator<Item = TokenTree>> {
    Box::new(tokens.into_iter().flat_map(|token| match token {
        TokenTree::Group(group) => flat(group.stream()),
        other => Box::new(std::iter::once(other)),
    }))
}
