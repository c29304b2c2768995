//! `#[cached]`: a function becomes one that asks the cache, and others beside it.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, FnArg, ItemFn, PatType, parse_quote};

use crate::arguments::Arguments;
use crate::attributes;
use crate::duration::Lifetime;
use crate::function::Function;
use crate::key::Key;
use crate::loader::{Storage, Tags, load};
use crate::names::mentions;
use crate::parameter::Parameter;

const ARGUMENTS: [&str; 7] = ["cache", "key", "ttl", "tags", "unless", "store_if", "refresh_if"];

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut function = Function::new(syn::parse2::<ItemFn>(item)?)?;
    function.use_what_is_named_in(&arguments);
    let cached = Cached::new(Arguments::parse(arguments, &ARGUMENTS)?, function)?;
    let (asks, uncached) = (cached.asking(), cached.uncached());
    let (invalidates, key) = (cached.invalidating(), cached.key_of());
    Ok(quote!(#asks #uncached #invalidates #key))
}

struct Cached {
    function: Function,
    cache: Expr,
    key: Key,
    storage: Storage,
    unless: Option<Expr>,
    refresh_if: Option<Expr>,
}

impl Cached {
    fn new(mut arguments: Arguments, function: Function) -> syn::Result<Self> {
        let cache = arguments.require("cache", "self.users")?;
        let key = arguments.require("key", &example_key(&function.parameters))?;
        let parameters = &function.parameters;
        let storage = Storage {
            ttl: arguments.take("ttl").map(Lifetime::new).transpose()?,
            tags: arguments.take("tags").map(|tags| Tags::new(tags, parameters)).transpose()?,
            store_if: arguments.take("store_if"),
        };
        let key = Key::new(key, parameters)?;
        let (unless, refresh_if) = (arguments.take("unless"), arguments.take("refresh_if"));
        Ok(Self { function, cache, key, storage, unless, refresh_if })
    }

    /// The function as it was declared, that asks the cache.
    fn asking(&self) -> TokenStream {
        let ItemFn { attrs, vis, sig, .. } = &self.function.item;
        let attributes = attributes::outside(attrs);
        let mut signature = sig.clone();
        signature.inputs.iter_mut().for_each(|input| plain(input, &self.function.parameters));
        let unless = self.unless.as_ref().map(|condition| {
            let (unless, directly) = (local("unless"), self.function.call_directly());
            quote!(let #unless: bool = #condition; if #unless { return #directly; })
        });
        let (bound, refreshed, cache) = (self.bind_cache(), self.refreshed(), cache());
        let key = self.key.reference(&self.function.parameters);
        let (method, loader) = load(&self.function, &self.storage, &|parameter| self.is_kept(parameter));
        // A key of another type is told where the key stands.
        let method = Ident::new(method, self.key.span());
        let answer = self.answer();
        quote! {
            #(#attributes)*
            #vis #signature {
                #unless
                #bound
                #refreshed
                match #cache.#method(#key, #loader).await { #answer }
            }
        }
    }

    /// The function with the body.
    fn uncached(&self) -> TokenStream {
        let ItemFn { attrs, vis, sig, block, .. } = &self.function.item;
        let attributes = attributes::inside(attrs);
        let doc = format!("`{}` without its cache.", sig.ident);
        let mut signature = sig.clone();
        signature.ident = self.function.uncached();
        quote! {
            #(#attributes)*
            #[doc = #doc]
            #vis #signature #block
        }
    }

    /// Invalidates the entry of a call.
    fn invalidating(&self) -> TokenStream {
        let (vis, name) = (&self.function.item.vis, self.function.beside("invalidate"));
        let (generics, clause) = self.generics();
        let receiver = self.function.receiver().into_iter().map(ToTokens::to_token_stream);
        let inputs =
            receiver.chain(self.named_by_entry(|name| self.key.names(name) || mentions(&self.cache, name)));
        let (bound, cache, invalidate) =
            (self.bind_cache(), cache(), Ident::new("invalidate", self.key.span()));
        let key = self.key.reference(&self.function.parameters);
        let doc = format!(
            "Invalidates what is cached of `{}` for such a call, on every node.",
            self.function.item.sig.ident
        );
        quote! {
            #[doc = #doc]
            #[allow(dead_code, clippy::needless_pass_by_value, clippy::extra_unused_lifetimes, reason = "it is there for whoever needs it")]
            #vis async fn #name #generics(#(#inputs),*)
                -> ::core::result::Result<::nearfar::Outcome, ::nearfar::Error> #clause
            {
                #bound
                #cache.#invalidate(#key).await
            }
        }
    }

    /// Tells the key of a call, if its type is known.
    fn key_of(&self) -> Option<TokenStream> {
        let Key::Text(template) = &self.key else { return None };
        let (vis, name) = (&self.function.item.vis, self.function.beside("key"));
        let (generics, clause) = self.generics();
        let inputs = self.named_by_entry(|name| self.key.names(name));
        let doc = format!("The key of what is cached of `{}` for such a call.", self.function.item.sig.ident);
        Some(quote! {
            #[doc = #doc]
            #[allow(dead_code, clippy::needless_pass_by_value, clippy::extra_unused_lifetimes, reason = "it is there for whoever needs it")]
            #vis fn #name #generics(#(#inputs),*) -> ::std::string::String #clause {
                #template
            }
        })
    }

    fn generics(&self) -> (&syn::Generics, Option<&syn::WhereClause>) {
        let generics = &self.function.item.sig.generics;
        (generics, generics.where_clause.as_ref())
    }

    /// The parameters that one entry differs from another by.
    fn named_by_entry(&self, names: impl Fn(&Ident) -> bool) -> impl Iterator<Item = TokenStream> {
        let parameters = self.function.parameters.iter().filter(move |parameter| names(&parameter.name));
        parameters.map(Parameter::declaration)
    }

    fn bind_cache(&self) -> TokenStream {
        let (name, given, key) = (cache(), &self.cache, self.key.ty());
        let value = self.function.returns.value().map_or_else(|| quote!(_), ToTokens::to_token_stream);
        let given = quote_spanned!(given.span()=> &(#given));
        quote!(let #name: &::nearfar::Cache<#key, #value> = #given;)
    }

    /// The cache, or one that loads whatever is cached.
    fn refreshed(&self) -> Option<TokenStream> {
        let (condition, cache) = (self.refresh_if.as_ref()?, cache());
        let (refresh, reloading) = (local("refresh"), local("reloading"));
        Some(quote! {
            let #refresh: bool = #condition;
            let #reloading;
            let #cache = if #refresh {
                #reloading = #cache.with(::nearfar::CallOptions::new().reload());
                &#reloading
            } else {
                #cache
            };
        })
    }

    /// Whether the loader needs a copy of an argument: it does if the argument itself is used after the loader is made.
    fn is_kept(&self, parameter: &Parameter) -> bool {
        let name = &parameter.name;
        parameter.is_borrowed()
            || !self.function.returns.is_fallible()
            || self.asks_again()
            || self.key.borrows(name)
            || mentions(&self.cache, name)
    }

    /// Whether the cache may say that there is no such thing to a function that has to return one.
    fn asks_again(&self) -> bool {
        !self.storage.is_plain() && !self.function.returns.is_optional()
    }

    /// The arms that make what the function returns out of what the cache says.
    fn answer(&self) -> TokenStream {
        let directly = self.function.call_directly();
        let directly = quote!(::std::boxed::Box::pin(async move { #directly }).await);
        let ok = |value: TokenStream| {
            if self.function.returns.is_fallible() {
                quote!(::core::result::Result::Ok(#value))
            } else {
                value
            }
        };
        let value = ok(quote!(::core::clone::Clone::clone(&*entry)));
        let found = if self.function.returns.is_optional() {
            let value = ok(quote!(entry.map(|entry| ::core::clone::Clone::clone(&*entry))));
            quote!(::core::result::Result::Ok(entry) => #value,)
        } else if self.asks_again() {
            quote! {
                ::core::result::Result::Ok(::core::option::Option::Some(entry)) => #value,
                ::core::result::Result::Ok(::core::option::Option::None) => #directly,
            }
        } else {
            quote!(::core::result::Result::Ok(entry) => #value,)
        };
        let failed =
            if self.function.returns.is_fallible() { self.converted() } else { made_up_for(&directly) };
        quote!(#found #failed)
    }

    /// The name of the function is what the compiler says, at the type that is returned, when there is no such error.
    fn converted(&self) -> TokenStream {
        let convert = quote_spanned! {self.function.item.sig.output.span()=>
            a_cached_function_needs_an_error_that_is_made_from_nearfar_error
        };
        quote! {
            ::core::result::Result::Err(error) => {
                fn a_cached_function_needs_an_error_that_is_made_from_nearfar_error<E>(error: ::nearfar::Error) -> E
                where
                    E: ::core::convert::From<::nearfar::Error>,
                {
                    E::from(error)
                }
                ::core::result::Result::Err(#convert(error))
            }
        }
    }
}

/// A function that cannot fail is called when the cache does, and panics if it has panicked.
fn made_up_for(directly: &TokenStream) -> TokenStream {
    quote! {
        ::core::result::Result::Err(error) if error.kind() == ::nearfar::ErrorKind::LoaderPanicked => {
            ::std::panic::resume_unwind(::std::boxed::Box::new(::std::string::ToString::to_string(&error)))
        }
        ::core::result::Result::Err(_) => #directly,
    }
}

/// A parameter without `mut`, which only the body needs.
fn plain(input: &mut FnArg, parameters: &[Parameter]) {
    let FnArg::Typed(PatType { pat, .. }) = input else { return };
    let is_this = |parameter: &&Parameter| matches!(&**pat, syn::Pat::Ident(pattern) if pattern.ident == parameter.name);
    if let Some(Parameter { name, .. }) = parameters.iter().find(is_this) {
        **pat = parse_quote!(#name);
    }
}

/// A name that no parameter can have.
fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

fn cache() -> Ident {
    local("cache")
}

/// What a key may look like, of all parameters.
fn example_key(parameters: &[Parameter]) -> String {
    let names: Vec<_> = parameters.iter().map(|parameter| format!("{{{}}}", parameter.name)).collect();
    if names.is_empty() { "\"all\"".to_owned() } else { format!("\"{}\"", names.join(":")) }
}
