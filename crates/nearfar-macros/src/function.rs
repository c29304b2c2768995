use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{FnArg, GenericParam, ItemFn, Receiver, ReceiverKind, Safety, Stmt, parse_quote};

use crate::attributes;
use crate::names::mentions;
use crate::parameter::Parameter;
use crate::returns::Returns;

/// A function that can be cached.
pub(crate) struct Function {
    pub(crate) item: ItemFn,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) returns: Returns,
}

impl Function {
    pub(crate) fn new(item: ItemFn) -> syn::Result<Self> {
        check_async(&item, "cached")?;
        check_sort(&item)?;
        let typed = item.sig.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(parameter) => Some(Parameter::new(parameter)),
            FnArg::Receiver(_) => None,
        });
        let parameters = typed.collect::<syn::Result<_>>()?;
        let returns = Returns::new(&item.sig.output);
        Ok(Self { item, parameters, returns })
    }

    /// What the arguments of the attribute name is used, also if the body does not.
    pub(crate) fn use_what_is_named_in(&mut self, arguments: &TokenStream) {
        let texts = arguments.to_string();
        let names = self.parameters.iter().map(|parameter| &parameter.name);
        let used = names.filter(|name| mentions(arguments, name) || texts.contains(&format!("{{{name}")));
        let used: Vec<Stmt> = used.map(|name| parse_quote!(let _ = &#name;)).collect();
        self.item.block.stmts.splice(..0, used);
    }

    pub(crate) fn receiver(&self) -> Option<&Receiver> {
        self.item.sig.receiver()
    }

    /// The name of a function beside this one.
    pub(crate) fn beside(&self, suffix: &str) -> Ident {
        format_ident!("{}_{}", self.item.sig.ident, suffix, span = self.item.sig.ident.span())
    }

    /// The name of the function that does the work.
    pub(crate) fn uncached(&self) -> Ident {
        self.beside("uncached")
    }

    /// A call of the function that does the work, by this one.
    pub(crate) fn call_directly(&self) -> TokenStream {
        let (uncached, names) = (self.uncached(), self.parameters.iter().map(|parameter| &parameter.name));
        let callee = match self.receiver() {
            Some(Receiver { self_token, .. }) => quote!(#self_token.#uncached),
            None => self.path_of(&uncached),
        };
        quote!(#callee(#(#names),*).await)
    }

    /// The same by a loader, with what it owns.
    pub(crate) fn call_from_loader(&self) -> TokenStream {
        let (uncached, this) = (self.uncached(), this());
        let arguments = self.parameters.iter().map(Parameter::pass_owned);
        let callee = match self.receiver() {
            Some(_) => quote!(#this.#uncached),
            None => self.path_of(&uncached),
        };
        quote!(#callee(#(#arguments),*).await)
    }

    /// A function that speaks of `Self` stands in an `impl`.
    fn path_of(&self, name: &Ident) -> TokenStream {
        let own_type = Ident::new("Self", Span::call_site());
        let (signature, body) = (&self.item.sig, &self.item.block);
        if mentions(signature, &own_type) || mentions(body, &own_type) {
            quote!(Self::#name)
        } else {
            quote!(#name)
        }
    }

    /// Makes what the loader owns of `self`.
    pub(crate) fn own_receiver(&self) -> Option<TokenStream> {
        let Receiver { self_token, kind, .. } = self.receiver()?;
        let is_reference = match kind {
            ReceiverKind::Reference(..) => true,
            ReceiverKind::Typed(_, ty) => matches!(**ty, syn::Type::Reference(_)),
            _ => false,
        };
        let borrow = if is_reference { quote!(#self_token) } else { quote!(&#self_token) };
        let this = this();
        // The name of the function is what the compiler says when there is no such clone.
        let clone =
            quote_spanned!(self_token.span=> a_cached_method_needs_a_self_that_can_be_cloned_for_its_loader);
        Some(quote! {
            let #this = {
                fn a_cached_method_needs_a_self_that_can_be_cloned_for_its_loader<T>(this: &T) -> T
                where
                    T: ::core::clone::Clone + ::core::marker::Send + ::core::marker::Sync + 'static,
                {
                    ::core::clone::Clone::clone(this)
                }
                #clone(#borrow)
            };
        })
    }
}

/// The loader's own `self`.
fn this() -> Ident {
    Ident::new("this", Span::mixed_site())
}

pub(crate) fn check_async(item: &ItemFn, attribute: &str) -> syn::Result<()> {
    match item.sig.asyncness {
        Some(_) => Ok(()),
        None => Err(syn::Error::new_spanned(
            item.sig.fn_token,
            format!("`#[{attribute}]` is for an `async fn`: it may have to wait for the network"),
        )),
    }
}

fn check_sort(item: &ItemFn) -> syn::Result<()> {
    if let Some(second) = attributes::named(&item.attrs, "cached") {
        return Err(syn::Error::new_spanned(
            second,
            "a function has one cache: `#[cached]` stands here twice",
        ));
    }
    if let Safety::Unsafe(token) = &item.sig.safety {
        return Err(syn::Error::new_spanned(token, "a loader cannot promise what an `unsafe fn` asks for"));
    }
    let generic =
        item.sig.generics.params.iter().find(|generic| !matches!(generic, GenericParam::Lifetime(_)));
    if let Some(generic) = generic {
        return Err(syn::Error::new_spanned(
            generic,
            "a cached function may not be generic: calls with different types would share an entry. Name the type",
        ));
    }
    match item.sig.receiver() {
        Some(receiver) if changes(receiver) => Err(syn::Error::new_spanned(
            receiver,
            "a cached method may not change `self`: it does not run when its value is cached",
        )),
        _ => Ok(()),
    }
}

fn changes(receiver: &Receiver) -> bool {
    match &receiver.kind {
        ReceiverKind::Reference(_, _, mutability) => mutability.is_some(),
        ReceiverKind::Typed(_, ty) => matches!(&**ty, syn::Type::Reference(to) if to.mutability.is_some()),
        _ => false,
    }
}
