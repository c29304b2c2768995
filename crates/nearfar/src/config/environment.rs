//! Settings out of environment variables.

use std::fmt;
use std::str::FromStr;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::error::{ConfigProblem, Error};

/// Those of this process. What is not Unicode is replaced, and then is no value of any setting.
pub(super) fn variables() -> impl Iterator<Item = (String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Reads the settings whose variables begin with a prefix.
pub(super) fn read<C, N, T>(
    prefix: &str,
    variables: impl IntoIterator<Item = (N, T)>,
    settings: impl FnOnce(MapAccessDeserializer<Variables>) -> Result<C, Unreadable>,
) -> Result<C, Error>
where
    N: Into<String>,
    T: Into<String>,
{
    let given =
        variables.into_iter().map(|(name, value)| Variable { name: name.into(), value: value.into() });
    let mut given: Vec<_> = given.filter(|variable| variable.name.starts_with(prefix)).collect();
    // So that it is always the same one of several errors that is told.
    given.sort_by(|a, b| b.name.cmp(&a.name));
    let variables = Variables { prefix_len: prefix.len(), given };
    let read = settings(MapAccessDeserializer::new(variables));
    read.map_err(|Unreadable { variable, problem }| {
        Error::config(ConfigProblem::Variable { variable: variable.unwrap_or_default(), problem })
    })
}

struct Variable {
    name: String,
    value: String,
}

/// The last is the next.
pub(super) struct Variables {
    prefix_len: usize,
    given: Vec<Variable>,
}

impl<'de> MapAccess<'de> for Variables {
    type Error = Unreadable;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unreadable> {
        let Some(Variable { name, .. }) = self.given.last() else { return Ok(None) };
        let setting = &name[self.prefix_len..];
        if setting.contains(|letter: char| letter.is_ascii_lowercase()) {
            return Err(Unreadable::new("settings are named in upper case").of(name));
        }
        let setting = setting.to_ascii_lowercase();
        let key: StrDeserializer<'_, Unreadable> = setting.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.of(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unreadable> {
        let Variable { name, value } = self.given.pop().expect("a value is asked for after its name");
        seed.deserialize(Value(value)).map_err(|error| error.of(&name))
    }
}

/// Text, and what it stands for: numbers and truths as well.
struct Value(String);

impl Value {
    fn parse<T: FromStr>(&self, what: &str) -> Result<T, Unreadable> {
        let expected = |_| Unreadable::new(format_args!("expected {what}, not {:?}", self.0));
        self.0.trim().parse().map_err(expected)
    }
}

macro_rules! parsed {
    ($($method:ident, $visit:ident, $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
            visitor.$visit(self.parse($what)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Value {
    type Error = Unreadable;

    parsed! {
        deserialize_bool, visit_bool, "`true` or `false`";
        deserialize_u16, visit_u16, "a number up to 65,535";
        deserialize_u32, visit_u32, "a number up to 4,294,967,295";
        deserialize_u64, visit_u64, "a number";
        deserialize_f64, visit_f64, "a number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 u8 f32 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}

/// Which variable cannot be read, and why.
#[derive(Debug)]
pub(super) struct Unreadable {
    variable: Option<String>,
    problem: Box<str>,
}

impl Unreadable {
    fn new(problem: impl fmt::Display) -> Self {
        Self { variable: None, problem: problem.to_string().into() }
    }

    fn of(self, variable: &str) -> Self {
        Self { variable: Some(variable.to_owned()), ..self }
    }
}

impl serde::de::Error for Unreadable {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self::new(problem)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format_args!("there is no setting `{field}`; there are {}", expected.join(", ")))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let known: Vec<_> = expected.iter().map(|known| format!("`{known}`")).collect();
        Self::new(format_args!("expected {}, not {variant:?}", known.join(" or ")))
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Unreadable {}
