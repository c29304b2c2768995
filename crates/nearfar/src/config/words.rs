//! Durations and policies as text.

use std::fmt;
use std::time::Duration;

use nearfar_core::Disconnected;
use serde::de::{DeserializeOwned, Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a duration looks like, for errors.
pub(super) const DURATION: &str = "a duration such as \"250ms\", \"5m\", \"1h 30m\" or \"forever\"";

const FOR_EVER: &str = "forever";

pub(super) fn read_duration(text: &str) -> Option<Duration> {
    if text == FOR_EVER { Some(Duration::MAX) } else { humantime::parse_duration(text).ok() }
}

pub(super) fn write_duration(duration: Duration) -> String {
    if duration == Duration::MAX {
        FOR_EVER.to_owned()
    } else {
        humantime::format_duration(duration).to_string()
    }
}

/// The one entry of a map.
pub(super) fn single<'de, T: DeserializeOwned, A: MapAccess<'de>>(
    mut map: A,
) -> Result<(String, T), A::Error> {
    let entry = map.next_entry()?;
    match (entry, map.next_key::<String>()?) {
        (Some(entry), None) => Ok(entry),
        _ => Err(A::Error::custom("expected one entry")),
    }
}

/// A duration that is written as text.
struct Text(Duration);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DURATION)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        read_duration(text)
            .map(Text)
            .ok_or_else(|| E::custom(format_args!("expected {DURATION}, not {text:?}")))
    }
}

/// Of a setting that is a duration.
pub(super) mod duration {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, Text};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(crate) fn serialize<S: Serializer>(
        setting: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        setting.map(Text).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
    }
}

/// A policy that nearfar-core knows, which knows nothing of formats.
struct Policy(Disconnected);

impl Serialize for Policy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Disconnected::Bypass => serializer.serialize_str("bypass"),
            Disconnected::Serve => serializer.serialize_str("serve"),
            Disconnected::ServeFor(span) => serializer.collect_map([("serve_for", Text(span))]),
        }
    }
}

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PolicyVisitor)
    }
}

struct PolicyVisitor;

impl<'de> Visitor<'de> for PolicyVisitor {
    type Value = Policy;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`bypass`, `serve` or `{ serve_for = \"10s\" }`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Policy, E> {
        let span = || read_duration(text.strip_prefix("serve_for:")?.trim());
        let policy = match text {
            "bypass" => Some(Disconnected::Bypass),
            "serve" => Some(Disconnected::Serve),
            _ => span().map(Disconnected::ServeFor),
        };
        policy.map(Policy).ok_or_else(|| {
            E::custom(format_args!("expected `bypass`, `serve` or `{{ serve_for = \"10s\" }}`, not {text:?}"))
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Policy, A::Error> {
        match single::<Text, A>(map)? {
            (word, Text(span)) if word == "serve_for" => Ok(Policy(Disconnected::ServeFor(span))),
            (word, _) => Err(A::Error::unknown_field(&word, &["serve_for"])),
        }
    }
}

/// Of the setting that is such a policy.
pub(super) mod disconnected {
    use super::{Deserialize, Deserializer, Disconnected, Policy, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(crate) fn serialize<S: Serializer>(
        setting: &Option<Disconnected>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        setting.map(Policy).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Disconnected>, D::Error> {
        Ok(Option::<Policy>::deserialize(deserializer)?.map(|policy| policy.0))
    }
}
