//! Text with parameters in it: `"{user_id}:{lang}"`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::LitStr;

use crate::parameter::Parameter;

pub(crate) struct Template {
    text: LitStr,
    /// The parameters that it names.
    names: Vec<String>,
}

impl Template {
    pub(crate) fn new(text: LitStr, parameters: &[Parameter]) -> syn::Result<Self> {
        let names = placeholders(&text)?;
        match names.iter().find(|name| parameters.iter().all(|parameter| parameter.name != *name)) {
            None => Ok(Self { text, names }),
            Some(stranger) => Err(syn::Error::new(text.span(), no_parameter(stranger, parameters))),
        }
    }

    pub(crate) fn names(&self, parameter: &Ident) -> bool {
        self.names.iter().any(|name| parameter == name)
    }

    pub(crate) fn span(&self) -> Span {
        self.text.span()
    }

    /// The text, if it is always the same.
    pub(crate) fn constant(&self) -> Option<String> {
        self.names.is_empty().then(|| self.text.value().replace("{{", "{").replace("}}", "}"))
    }
}

impl ToTokens for Template {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let text = &self.text;
        let constant = self.constant().map(|constant| quote!(::std::string::String::from(#constant)));
        tokens.extend(constant.unwrap_or_else(|| quote!(::std::format!(#text))));
    }
}

/// What stands in braces, without formats such as `:?`.
fn placeholders(text: &LitStr) -> syn::Result<Vec<String>> {
    let value = text.value().replace("{{", "").replace("}}", "");
    let mut names = Vec::new();
    let mut rest = value.as_str();
    while let Some((_, opened)) = rest.split_once('{') {
        let Some((inside, after)) = opened.split_once('}') else {
            return Err(syn::Error::new(
                text.span(),
                "a `{` without its `}`; a brace itself is written `{{`",
            ));
        };
        names.push(inside.split(':').next().unwrap_or(inside).trim().to_owned());
        rest = after;
    }
    Ok(names)
}

fn no_parameter(stranger: &str, parameters: &[Parameter]) -> String {
    if stranger.is_empty() || stranger.starts_with(|first: char| first.is_ascii_digit()) {
        return "name the parameter in the braces: `{user_id}`".to_owned();
    }
    if stranger.contains('.') {
        return format!(
            "`{{{stranger}}}` is no parameter. An expression is a key as well: `key = format!(\"...\", {stranger})`"
        );
    }
    let names: Vec<_> = parameters.iter().map(|parameter| format!("`{}`", parameter.name)).collect();
    match names.as_slice() {
        [] => format!("`{{{stranger}}}` is no parameter: there are none"),
        _ => format!("`{{{stranger}}}` is no parameter: there are {}", names.join(", ")),
    }
}
