use syn::{GenericArgument, PathArguments, PathSegment, ReturnType, Type, parse_quote};

/// What a cached function returns, and so how it is loaded.
pub(crate) enum Returns {
    /// `T`
    Value(Type),
    /// `Option<T>`
    Optional(Type),
    /// `Result<T, E>`, or an alias called `Result` of which nothing more is known.
    Fallible(Option<Type>),
    /// `Result<Option<T>, E>`
    FallibleOptional(Type),
}

impl Returns {
    pub(crate) fn new(output: &ReturnType) -> Self {
        let ReturnType::Type(_, ty) = output else { return Self::Value(parse_quote!(())) };
        if let Some(segment) = segment(ty, "Result") {
            let Some(inner) = first_argument(segment) else { return Self::Fallible(None) };
            return match optional(inner) {
                Some(value) => Self::FallibleOptional(value.clone()),
                None => Self::Fallible(Some(inner.clone())),
            };
        }
        match optional(ty) {
            Some(value) => Self::Optional(value.clone()),
            None => Self::Value((**ty).clone()),
        }
    }

    /// The type of what is cached, if it is known.
    pub(crate) fn value(&self) -> Option<&Type> {
        match self {
            Self::Value(value) | Self::Optional(value) | Self::FallibleOptional(value) => Some(value),
            Self::Fallible(value) => value.as_ref(),
        }
    }

    pub(crate) fn is_fallible(&self) -> bool {
        matches!(self, Self::Fallible(_) | Self::FallibleOptional(_))
    }

    pub(crate) fn is_optional(&self) -> bool {
        matches!(self, Self::Optional(_) | Self::FallibleOptional(_))
    }
}

fn optional(ty: &Type) -> Option<&Type> {
    first_argument(segment(ty, "Option")?)
}

/// The last part of a path, if it has this name.
fn segment<'a>(ty: &'a Type, name: &str) -> Option<&'a PathSegment> {
    let Type::Path(path) = ty else { return None };
    path.path.segments.last().filter(|segment| segment.ident == name)
}

fn first_argument(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}
