use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::spanned::Spanned;
use syn::{Expr, ExprLit, Lit};

use crate::names::mentions;
use crate::parameter::Parameter;
use crate::template::Template;

/// What an entry is found by.
pub(crate) enum Key {
    /// Text, for a cache of `String` keys.
    Text(Template),
    /// An expression, which is a key of the cache or a reference to one.
    Typed(Expr),
}

impl Key {
    pub(crate) fn new(value: Expr, parameters: &[Parameter]) -> syn::Result<Self> {
        match value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Template::new(text, parameters).map(Self::Text),
            other => Ok(Self::Typed(other)),
        }
    }

    /// Whether it depends on a parameter.
    pub(crate) fn names(&self, parameter: &Ident) -> bool {
        match self {
            Self::Text(template) => template.names(parameter),
            Self::Typed(expression) => mentions(expression, parameter),
        }
    }

    /// Whether it borrows from a parameter while the cache is asked.
    pub(crate) fn borrows(&self, parameter: &Ident) -> bool {
        matches!(self, Self::Typed(_)) && self.names(parameter)
    }

    /// A reference to it.
    pub(crate) fn reference(&self, parameters: &[Parameter]) -> TokenStream {
        match self {
            Self::Text(template) => {
                template.constant().map_or_else(|| quote!(&#template), ToTokens::into_token_stream)
            }
            Self::Typed(reference @ Expr::Reference(_)) => quote!(#reference),
            Self::Typed(Expr::Path(path)) => {
                let is_this = |parameter: &&Parameter| path.path.is_ident(&parameter.name);
                parameters.iter().find(is_this).map_or_else(|| quote!(&(#path)), Parameter::reference)
            }
            Self::Typed(expression) => quote!(&(#expression)),
        }
    }

    /// Where it stands, for what is wrong with it.
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Text(template) => template.span(),
            Self::Typed(expression) => expression.span(),
        }
    }

    /// The type of the cache's keys, as far as it is known.
    pub(crate) fn ty(&self) -> TokenStream {
        match self {
            Self::Text(_) => quote!(::std::string::String),
            Self::Typed(_) => quote!(_),
        }
    }
}
