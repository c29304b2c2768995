//! `#[invalidates]`: a function becomes one that tells the cache when it has succeeded.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, FnArg, ItemFn, ReturnType, Type};

use crate::arguments::Arguments;
use crate::function::check_async;
use crate::key::Key;
use crate::loader::Tags;
use crate::names::mentions;
use crate::parameter::Parameter;
use crate::returns::Returns;

const ARGUMENTS: [&str; 3] = ["cache", "key", "tags"];

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let item = syn::parse2::<ItemFn>(item)?;
    check_async(&item, "invalidates")?;
    let returned = returned(&item)?;
    let named = item.sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(parameter) => Parameter::named(parameter),
        FnArg::Receiver(_) => None,
    });
    let parameters: Vec<_> = named.collect();
    let what = What::new(Arguments::parse(arguments, &ARGUMENTS)?, &parameters)?;
    let (before, after) = (what.before(&parameters), what.after(returned));
    let ItemFn { attrs, vis, sig, block, .. } = &item;
    let result = local("result");
    Ok(quote! {
        #(#attrs)*
        #vis #sig {
            #before
            let #result: #returned = async move #block.await;
            if #result.is_ok() { #after }
            #result
        }
    })
}

struct What {
    cache: Expr,
    key: Option<Key>,
    tags: Option<Tags>,
}

impl What {
    fn new(mut arguments: Arguments, parameters: &[Parameter]) -> syn::Result<Self> {
        let cache = arguments.require("cache", "self.users")?;
        let key = arguments.take("key").map(|key| Key::new(key, parameters)).transpose()?;
        let tags = arguments.take("tags").map(|tags| Tags::new(tags, parameters)).transpose()?;
        if key.is_none() && tags.is_none() {
            return Err(syn::Error::new(
                Span::call_site(),
                "say which entries: by `key = ...`, by `tags = [...]`, or both",
            ));
        }
        Ok(Self { cache, key, tags })
    }

    /// What it takes is taken beforehand: the function may consume its arguments.
    fn before(&self, parameters: &[Parameter]) -> TokenStream {
        let (given, cache, key_type) =
            (&self.cache, local("cache"), self.key.as_ref().map_or_else(|| quote!(_), Key::ty));
        let key = self.key.as_ref().map(|key| {
            let (name, reference) = (local("key"), key.reference(parameters));
            quote!(let #name = ::std::borrow::ToOwned::to_owned(#reference);)
        });
        let tags = self.tags.as_ref().map(|tags| {
            let name = local("tags");
            quote!(let #name = #tags;)
        });
        let given = quote_spanned!(given.span()=> &(#given));
        quote! {
            let #cache = {
                let given: &::nearfar::Cache<#key_type, _> = #given;
                ::core::clone::Clone::clone(given)
            };
            #key
            #tags
        }
    }

    /// All of it is invalidated, also if some of it fails.
    fn after(&self, returned: &Type) -> TokenStream {
        let (cache, failure) = (local("cache"), local("failure"));
        let convert = quote_spanned! {returned.span()=>
            an_invalidating_function_needs_an_error_that_is_made_from_nearfar_error
        };
        let key = self.key.as_ref().map(|given| {
            let (key, invalidate) = (local("key"), Ident::new("invalidate", given.span()));
            quote! {
                if let ::core::result::Result::Err(error) = #cache.#invalidate(&#key).await {
                    #failure = ::core::option::Option::Some(error);
                }
            }
        });
        let tags = self.tags.as_ref().map(|_| {
            let tags = local("tags");
            quote! {
                for tag in #tags {
                    if let ::core::result::Result::Err(error) = #cache.invalidate_tag(&tag).await {
                        #failure = ::core::option::Option::Some(error);
                    }
                }
            }
        });
        quote! {
            let mut #failure = ::core::option::Option::None;
            #key
            #tags
            if let ::core::option::Option::Some(error) = #failure {
                fn an_invalidating_function_needs_an_error_that_is_made_from_nearfar_error<E>(
                    error: ::nearfar::Error,
                ) -> E
                where
                    E: ::core::convert::From<::nearfar::Error>,
                {
                    E::from(error)
                }
                return ::core::result::Result::Err(#convert(error));
            }
        }
    }
}

/// The type that the function returns, which must be able to say that the cache was not told.
fn returned(item: &ItemFn) -> syn::Result<&Type> {
    const NEEDS_RESULT: &str = "`#[invalidates]` needs a function that returns a `Result`: whether it has succeeded, and whether the cache could be \
         told, has to be said";
    match &item.sig.output {
        ReturnType::Type(_, ty) if mentions(ty, &Ident::new("impl", Span::call_site())) => {
            Err(syn::Error::new_spanned(ty, "name the type that `#[invalidates]` is to hand on"))
        }
        ReturnType::Type(_, ty) if Returns::new(&item.sig.output).is_fallible() => Ok(ty),
        ReturnType::Type(_, ty) => Err(syn::Error::new_spanned(ty, NEEDS_RESULT)),
        ReturnType::Default => Err(syn::Error::new_spanned(item.sig.to_token_stream(), NEEDS_RESULT)),
    }
}

fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}
