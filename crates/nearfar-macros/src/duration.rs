use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Expr, ExprLit, Lit};

/// A `ttl`: text such as `"5m"`, read here, or an expression that is a `Duration`.
pub(crate) enum Lifetime {
    Given(Duration),
    Computed(Expr),
}

impl Lifetime {
    pub(crate) fn new(value: Expr) -> syn::Result<Self> {
        let Expr::Lit(ExprLit { lit, .. }) = &value else { return Ok(Self::Computed(value)) };
        let Lit::Str(text) = lit else {
            return Err(syn::Error::new_spanned(lit, "say the unit as well: `ttl = \"5m\"`"));
        };
        match humantime::parse_duration(&text.value()) {
            Ok(Duration::ZERO) => {
                Err(syn::Error::new(text.span(), "with a `ttl` of zero, nothing is ever stored"))
            }
            Ok(duration) => Ok(Self::Given(duration)),
            Err(_) => Err(syn::Error::new(
                text.span(),
                "a duration is written like \"250ms\", \"5m\" or \"1h 30m\"",
            )),
        }
    }
}

impl ToTokens for Lifetime {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            Self::Given(duration) => {
                let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
                quote!(::core::time::Duration::new(#seconds, #nanos))
            }
            Self::Computed(expression) => quote!(#expression),
        });
    }
}
