use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Pat, PatType, Type, TypeReference};

use crate::names::flat;

/// A parameter, which is handed on to the loader.
pub(crate) struct Parameter {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
    passed: Passed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    ByValue,
    ByReference,
}

impl Parameter {
    /// One that can be handed on to a loader.
    pub(crate) fn new(parameter: &PatType) -> syn::Result<Self> {
        let unnamed = || {
            syn::Error::new_spanned(
                &parameter.pat,
                "give this parameter a name, by which it is handed on: take it apart in the function",
            )
        };
        check_ownable(&parameter.ty)?;
        Self::named(parameter).ok_or_else(unnamed)
    }

    /// One that a key may name; `None` if it has no name.
    pub(crate) fn named(parameter: &PatType) -> Option<Self> {
        let Pat::Ident(pattern) = &*parameter.pat else { return None };
        let (name, ty) = (pattern.ident.clone(), (*parameter.ty).clone());
        let passed = if lent(&ty).is_some() { Passed::ByReference } else { Passed::ByValue };
        Some(Self { name, ty, passed })
    }

    /// As it is declared, without a `mut`.
    pub(crate) fn declaration(&self) -> TokenStream {
        let Self { name, ty, .. } = self;
        quote!(#name: #ty)
    }

    /// Makes what the loader owns of it.
    pub(crate) fn own(&self) -> TokenStream {
        let name = &self.name;
        match self.passed {
            Passed::ByValue => quote!(let #name = ::core::clone::Clone::clone(&#name);),
            Passed::ByReference => quote!(let #name = ::std::borrow::ToOwned::to_owned(#name);),
        }
    }

    /// Passes what the loader owns of it to the function.
    pub(crate) fn pass_owned(&self) -> TokenStream {
        let name = &self.name;
        match self.passed {
            Passed::ByValue => quote!(#name),
            Passed::ByReference => quote!(::std::borrow::Borrow::borrow(&#name)),
        }
    }

    /// A reference to it, as a key is looked up by.
    pub(crate) fn reference(&self) -> TokenStream {
        let name = &self.name;
        match self.passed {
            Passed::ByValue => quote!(&#name),
            Passed::ByReference => quote!(#name),
        }
    }

    /// Whether the loader has to own a copy of it, even if nobody needs the original afterwards.
    pub(crate) fn is_borrowed(&self) -> bool {
        self.passed == Passed::ByReference
    }
}

/// What a reference refers to; `None` if it is no reference, or one that lasts for ever.
fn lent(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Reference(TypeReference { lifetime: Some(lifetime), .. }) if lifetime.ident == "static" => None,
        Type::Reference(reference) => Some(&reference.elem),
        _ => None,
    }
}

/// The loader may outlive the call.
fn check_ownable(ty: &Type) -> syn::Result<()> {
    match ty {
        Type::Reference(TypeReference { mutability: Some(_), .. }) => Err(syn::Error::new_spanned(
            ty,
            "a cached function may not change its arguments: it does not run when its value is cached",
        )),
        _ => check_owned(lent(ty).unwrap_or(ty)),
    }
}

fn check_owned(ty: &Type) -> syn::Result<()> {
    let tokens: Vec<_> = flat(ty.to_token_stream()).collect();
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.to_string() == text);
    let is_static = |at: usize| is(at, "'") && is(at + 1, "static");
    let problem = tokens.iter().enumerate().find_map(|(at, token)| match token {
        TokenTree::Ident(ident) if ident == "impl" => Some(
            "a cached function may not be generic: calls with different types would share an entry. Name the type",
        ),
        TokenTree::Punct(punct) => match punct.as_char() {
            '&' if !is_static(at + 1) => Some(BORROWS),
            '\'' if !is_static(at) => Some(BORROWS),
            _ => None,
        },
        _ => None,
    });
    problem.map_or(Ok(()), |problem| Err(syn::Error::new_spanned(ty, problem)))
}

const BORROWS: &str = "a load may outlive the call that began it, so it needs arguments of its own: take an owned type, \
                       or a plain reference to one, such as `&str` or `&[u8]`";
