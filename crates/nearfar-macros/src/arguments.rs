//! What stands in the brackets of an attribute.

use proc_macro2::{Ident, Span, TokenStream};
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Expr, Token};

/// Arguments by name, each given once and one of those that the attribute has.
pub(crate) struct Arguments(Vec<Argument>);

struct Argument {
    name: Ident,
    value: Expr,
}

impl Parse for Argument {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let name: Ident = input.parse()?;
        if !input.peek(Token![=]) {
            return Err(syn::Error::new(name.span(), format!("`{name}` needs a value: `{name} = ...`")));
        }
        input.parse::<Token![=]>()?;
        Ok(Self { name, value: input.parse()? })
    }
}

impl Arguments {
    pub(crate) fn parse(tokens: TokenStream, known: &[&str]) -> syn::Result<Self> {
        let given = Punctuated::<Argument, Token![,]>::parse_terminated.parse2(tokens)?;
        let given: Vec<_> = given.into_iter().collect();
        for (at, Argument { name, .. }) in given.iter().enumerate() {
            if !known.iter().any(|known| name == known) {
                let text = format!("no argument `{name}`: there are {}", list(known));
                return Err(syn::Error::new(name.span(), text));
            }
            if given[..at].iter().any(|earlier| earlier.name == *name) {
                return Err(syn::Error::new(name.span(), format!("`{name}` is given twice")));
            }
        }
        Ok(Self(given))
    }

    /// Takes an argument out.
    pub(crate) fn take(&mut self, name: &str) -> Option<Expr> {
        let at = self.0.iter().position(|argument| argument.name == name)?;
        Some(self.0.swap_remove(at).value)
    }

    /// Takes out one that must be there.
    pub(crate) fn require(&mut self, name: &str, example: &str) -> syn::Result<Expr> {
        let missing =
            || syn::Error::new(Span::call_site(), format!("`{name}` is missing: say `{name} = {example}`"));
        self.take(name).ok_or_else(missing)
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
