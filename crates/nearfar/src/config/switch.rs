use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::words;
use crate::compression::Compression;
use crate::refresh::RefreshAhead;

/// A setting that may be off: `"off"`, or what it is.
///
/// ```
/// use nearfar::{CacheConfig, Switch};
/// use std::time::Duration;
///
/// let config: CacheConfig = serde_json::from_str(r#"{"idle": "10m", "l1_max_bytes": "off"}"#)?;
/// assert_eq!(config.idle, Some(Switch::On(Duration::from_secs(600))));
/// assert_eq!(config.l1_max_bytes, Some(Switch::Off));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch<T> {
    /// Off.
    Off,
    /// On, as this.
    On(T),
}

impl<T> Switch<T> {
    pub(crate) fn of(setting: Option<T>) -> Self {
        setting.map_or(Self::Off, Self::On)
    }

    pub(crate) fn setting(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(setting) => Some(setting),
        }
    }
}

/// What can be on, as formats have it.
pub(crate) trait Settable: Sized {
    /// What it looks like, for errors.
    const FORM: &'static str;

    fn from_text(text: &str) -> Option<Self>;

    fn from_number(_number: u64) -> Option<Self> {
        None
    }

    fn from_map<'de, A: MapAccess<'de>>(_map: A) -> Result<Self, A::Error> {
        Err(A::Error::custom(format_args!("expected {}", Self::FORM)))
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

impl<T: Settable> Serialize for Switch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(setting) => setting.write(serializer),
        }
    }
}

impl<'de, T: Settable> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Switched(PhantomData))
    }
}

struct Switched<T>(PhantomData<T>);

impl<'de, T: Settable> Visitor<'de> for Switched<T> {
    type Value = Switch<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, or \"off\"", T::FORM)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Switch<T>, E> {
        if text == "off" {
            return Ok(Switch::Off);
        }
        let expected = || E::custom(format_args!("expected {}, or \"off\", not {text:?}", T::FORM));
        T::from_text(text).map(Switch::On).ok_or_else(expected)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Switch<T>, E> {
        let expected = || E::custom(format_args!("expected {}, or \"off\", not {number}", T::FORM));
        T::from_number(number).map(Switch::On).ok_or_else(expected)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Switch<T>, E> {
        let expected = |_| E::custom(format_args!("expected {}, or \"off\", not {number}", T::FORM));
        self.visit_u64(u64::try_from(number).map_err(expected)?)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Switch<T>, A::Error> {
        T::from_map(map).map(Switch::On)
    }
}

impl Settable for Duration {
    const FORM: &'static str = words::DURATION;

    fn from_text(text: &str) -> Option<Self> {
        words::read_duration(text)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&words::write_duration(*self))
    }
}

impl Settable for u64 {
    const FORM: &'static str = "a number";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_number(number: u64) -> Option<Self> {
        Some(number)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(*self)
    }
}

impl Settable for RefreshAhead {
    const FORM: &'static str = "`{ after = 0.8 }` or `{ probabilistic = 1.0 }`";

    fn from_text(text: &str) -> Option<Self> {
        let (word, number) = text.split_once(':')?;
        Self::named(word, number.trim().parse().ok()?)
    }

    fn from_map<'de, A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        let (word, number) = words::single::<f64, A>(map)?;
        Self::named(&word, number).ok_or_else(|| A::Error::unknown_field(&word, &["after", "probabilistic"]))
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (word, number) = match self {
            Self::After(fraction) => ("after", fraction),
            Self::Probabilistic(beta) => ("probabilistic", beta),
        };
        serializer.collect_map([(word, number)])
    }
}

impl RefreshAhead {
    fn named(word: &str, number: f64) -> Option<Self> {
        match word.trim() {
            "after" => Some(Self::After(number)),
            "probabilistic" => Some(Self::Probabilistic(number)),
            _ => None,
        }
    }
}

impl Settable for Compression {
    const FORM: &'static str =
        "`lz4` or `zstd`, compiled in by the cargo feature of that name, or `zstd:2048`";

    fn from_text(text: &str) -> Option<Self> {
        let (name, above) = text.split_once(':').map_or((text, None), |(name, above)| (name, Some(above)));
        let compression = Self::named(name.trim())?;
        match above {
            None => Some(compression),
            Some(above) => Some(compression.above(above.trim().parse().ok()?)),
        }
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
