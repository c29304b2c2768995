//! The closure that a cache is given to load with.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::{Expr, ExprArray, ExprLit, Lit};

use crate::duration::Lifetime;
use crate::function::Function;
use crate::parameter::Parameter;
use crate::template::Template;

/// How what the function returns is to be cached, where the cache's own settings are not.
pub(crate) struct Storage {
    pub(crate) ttl: Option<Lifetime>,
    pub(crate) tags: Option<Tags>,
    /// A predicate on the value.
    pub(crate) store_if: Option<Expr>,
}

impl Storage {
    /// Whether the function's value is stored as the cache is set.
    pub(crate) fn is_plain(&self) -> bool {
        self.ttl.is_none() && self.tags.is_none() && self.store_if.is_none()
    }

    /// Makes a `Loaded` of a value, or of none.
    fn wrap(&self, function: &Function) -> TokenStream {
        let (found, value, tags) = (local("found"), local("value"), local("tags"));
        let ttl = self.ttl.as_ref().map(|ttl| quote!(.ttl(#ttl)));
        let tagged = self.tags.as_ref().map(|_| quote!(.tags(#tags)));
        let loaded = match &self.store_if {
            None => quote!(::nearfar::Loaded::new(#value) #ttl),
            Some(predicate) => quote!({
                fn decides_whether_nearfar_stores<T>(value: &T, predicate: impl ::core::ops::FnOnce(&T) -> bool) -> bool {
                    predicate(value)
                }
                let is_stored = decides_whether_nearfar_stores(&#value, #predicate);
                let loaded = ::nearfar::Loaded::new(#value) #ttl;
                if is_stored { loaded } else { loaded.do_not_store() }
            }),
        };
        if function.returns.is_optional() {
            quote!(match #found {
                ::core::option::Option::Some(#value) => #loaded,
                ::core::option::Option::None => ::nearfar::Loaded::absent(),
            } #tagged)
        } else {
            quote!({ let #value = #found; #loaded } #tagged)
        }
    }
}

/// The method that a loader is given to, and the loader.
pub(crate) fn load(
    function: &Function,
    storage: &Storage,
    kept: &dyn Fn(&Parameter) -> bool,
) -> (&'static str, TokenStream) {
    let method = match (storage.is_plain(), function.returns.is_optional()) {
        (false, _) => "get_or_load_with",
        (true, true) => "get_or_load_optional",
        (true, false) => "get_or_load",
    };
    let this = function.own_receiver();
    let owned = function.parameters.iter().filter(|parameter| kept(parameter)).map(Parameter::own);
    let body = body(function, storage);
    (method, quote!({ #this #(#owned)* move |_| async move { #body } }))
}

fn body(function: &Function, storage: &Storage) -> TokenStream {
    let call = function.call_from_loader();
    let ok = if function.returns.is_fallible() {
        quote!(::core::result::Result::Ok)
    } else {
        quote!(::core::result::Result::Ok::<_, ::core::convert::Infallible>)
    };
    if storage.is_plain() {
        return if function.returns.is_fallible() { call } else { quote!(#ok(#call)) };
    }
    let (found, tags) = (local("found"), local("tags"));
    // Before the call, which may take the arguments.
    let tags = storage.tags.as_ref().map(|given| quote!(let #tags = #given;));
    let wrapped = storage.wrap(function);
    let call = if function.returns.is_fallible() {
        quote!(match #call {
            ::core::result::Result::Ok(found) => found,
            ::core::result::Result::Err(error) => return ::core::result::Result::Err(error),
        })
    } else {
        call
    };
    quote!(#tags let #found = #call; #ok(#wrapped))
}

fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// Tags: texts that may name parameters, and expressions.
pub(crate) enum Tags {
    Listed(Vec<Tag>),
    Computed(Expr),
}

pub(crate) enum Tag {
    Text(Template),
    Computed(Expr),
}

impl Tags {
    pub(crate) fn new(value: Expr, parameters: &[Parameter]) -> syn::Result<Self> {
        let Expr::Array(ExprArray { elems, .. }) = value else { return Ok(Self::Computed(value)) };
        let tag = |tag| match tag {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Template::new(text, parameters).map(Tag::Text),
            other => Ok(Tag::Computed(other)),
        };
        elems.into_iter().map(tag).collect::<syn::Result<_>>().map(Self::Listed)
    }
}

impl ToTokens for Tags {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            Self::Listed(tags) => quote!([#(#tags),*]),
            Self::Computed(expression) => quote!(#expression),
        });
    }
}

impl ToTokens for Tag {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            Self::Text(template) => quote!(#template),
            Self::Computed(expression) => quote!(::std::string::ToString::to_string(&(#expression))),
        });
    }
}
