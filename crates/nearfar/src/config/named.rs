//! Errors that say of which setting they are.
//!
//! Formats say where in a file an error is, or nothing; the name is what helps whoever has to mend it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};

/// Settings by name.
pub(super) struct Named<A> {
    settings: A,
    name: String,
}

impl<A> Named<A> {
    pub(super) fn new(settings: A) -> Self {
        Self { settings, name: String::new() }
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Named<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(name) = self.settings.next_key::<String>()? else { return Ok(None) };
        self.name.clone_from(&name);
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        let of_setting = |error| A::Error::custom(format_args!("`{}`: {error}", self.name));
        self.settings.next_value_seed(seed).map_err(of_setting)
    }
}

/// Reads what has names of its own, each with settings.
pub(super) fn sections<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Sections<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Sections<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("settings by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, sections: A) -> Result<Self::Value, A::Error> {
            BTreeMap::deserialize(MapAccessDeserializer::new(Named::new(sections)))
        }
    }

    deserializer.deserialize_map(Sections(PhantomData))
}

/// Implements `Deserialize` by the inherent function that serde derives for a remote type.
macro_rules! deserialize_named {
    ($config:ty) => {
        impl<'de> serde::Deserialize<'de> for $config {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Settings;

                impl<'de> serde::de::Visitor<'de> for Settings {
                    type Value = $config;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("settings by name")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        settings: A,
                    ) -> Result<$config, A::Error> {
                        let settings = crate::config::named::Named::new(settings);
                        <$config>::deserialize(serde::de::value::MapAccessDeserializer::new(settings))
                    }
                }

                deserializer.deserialize_map(Settings)
            }
        }

        impl serde::Serialize for $config {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$config>::serialize(self, serializer)
            }
        }
    };
}
pub(super) use deserialize_named;
