use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nearfar_redis::Tls;
use serde::{Deserialize, Serialize};

use super::{CacheConfig, environment, named, words};
use crate::error::{ConfigProblem, Error};
use crate::nearfar::Nearfar;

/// The settings of a node as data, and those of its caches: [`NearfarBuilder`](crate::NearfarBuilder)'s setters by name, but
/// for `tokio_time`, which is for tests. What is not said stays as it is.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfar::NearfarConfig;
///
/// let config: NearfarConfig = toml::from_str(
///     r#"
///     url = "redis://app:secret@127.0.0.1:1" # nobody listens there
///     connect_timeout = "2s"
///
///     [caches.users]
///     ttl = "5m"
///     "#,
/// )?;
/// assert!(config.connect().await.unwrap_err().is_unavailable());
/// assert_eq!(config.cache("users")?.ttl, Some(std::time::Duration::from_secs(300)));
/// assert!(!format!("{config:?}").contains("secret"));
///
/// let wrong = config.cache("usres").unwrap_err();
/// assert_eq!(wrong.to_string(), "there are no settings `caches.usres`; there are those of users");
/// # Ok(())
/// # }
/// ```
///
/// Then, of each cache that the program builds, `nearfar.cache("users").config(config.cache("users")?)`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NearfarConfig {
    /// What [`connect`](crate::NearfarBuilder::connect) takes. `Debug` does not show it, for it may have a password in it;
    /// who serializes the configuration gets all of it.
    pub url: Option<String>,
    /// See [`NearfarBuilder::connect_timeout`](crate::NearfarBuilder::connect_timeout).
    #[serde(with = "words::duration")]
    pub connect_timeout: Option<Duration>,
    /// See [`NearfarBuilder::command_timeout`](crate::NearfarBuilder::command_timeout).
    #[serde(with = "words::duration")]
    pub command_timeout: Option<Duration>,
    /// See [`NearfarBuilder::start_degraded`](crate::NearfarBuilder::start_degraded).
    pub start_degraded: Option<bool>,
    /// See [`NearfarBuilder::log_len`](crate::NearfarBuilder::log_len).
    pub log_len: Option<u64>,
    /// The file of [`Tls::ca_pem`](crate::Tls::ca_pem). Files are read when the configuration is applied.
    pub tls_ca_file: Option<PathBuf>,
    /// The file of the certificates of [`Tls::client_pem`](crate::Tls::client_pem).
    pub tls_certificate_file: Option<PathBuf>,
    /// The file of the key of [`Tls::client_pem`](crate::Tls::client_pem).
    pub tls_key_file: Option<PathBuf>,
    /// The settings of caches, by namespace.
    #[serde(deserialize_with = "named::sections")]
    pub caches: BTreeMap<String, CacheConfig>,
}

impl NearfarConfig {
    /// What the environment says of the node; see [`CacheConfig::from_env`]. Caches have variables of their own, with
    /// prefixes of their own.
    pub fn from_env(prefix: &str) -> Result<Self, Error> {
        Self::from_vars(prefix, environment::variables())
    }

    /// As [`from_env`](Self::from_env), with variables from elsewhere.
    ///
    /// ```
    /// use nearfar::NearfarConfig;
    ///
    /// let config = NearfarConfig::from_vars("REDIS_", [("REDIS_URL", "redis://cache"), ("REDIS_LOG_LEN", "500")])?;
    /// assert_eq!((config.url.as_deref(), config.log_len), (Some("redis://cache"), Some(500)));
    /// # Ok::<_, nearfar::Error>(())
    /// ```
    pub fn from_vars<N, T>(prefix: &str, variables: impl IntoIterator<Item = (N, T)>) -> Result<Self, Error>
    where
        N: Into<String>,
        T: Into<String>,
    {
        environment::read(prefix, variables, Self::deserialize)
    }

    /// Connects to the [`url`](Self::url) with these settings.
    ///
    /// # Errors
    /// As [`NearfarBuilder::connect`](crate::NearfarBuilder::connect), and of kind [`Config`](crate::ErrorKind::Config) if
    /// there is no url or a file cannot be read.
    pub async fn connect(&self) -> Result<Nearfar, Error> {
        let missing = || Error::config(ConfigProblem::Missing { setting: "url" });
        let url = self.url.as_deref().ok_or_else(missing)?;
        Nearfar::builder().config(self)?.connect(url).await
    }

    /// The settings of a cache.
    ///
    /// # Errors
    /// Of kind [`Config`](crate::ErrorKind::Config) if there are none, for a name with a slip would have no effect. A cache
    /// without settings of its own has an empty section.
    pub fn cache(&self, namespace: &str) -> Result<&CacheConfig, Error> {
        self.caches.get(namespace).ok_or_else(|| {
            let known = self.caches.keys().cloned().collect();
            Error::config(ConfigProblem::NoSuchCache { namespace: namespace.to_owned(), known })
        })
    }

    /// What the files hold; `None` if none is named.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, Error> {
        let pem =
            |setting, file: &Option<PathBuf>| file.as_deref().map(|file| read(setting, file)).transpose();
        let ca = pem("tls_ca_file", &self.tls_ca_file)?;
        let certificates = pem("tls_certificate_file", &self.tls_certificate_file)?;
        let client = match (certificates, pem("tls_key_file", &self.tls_key_file)?) {
            (Some(certificates), Some(key)) => Some((certificates, key)),
            (None, None) => None,
            (Some(_), None) => return Err(Error::config(ConfigProblem::Missing { setting: "tls_key_file" })),
            (None, Some(_)) => {
                return Err(Error::config(ConfigProblem::Missing { setting: "tls_certificate_file" }));
            }
        };
        if ca.is_none() && client.is_none() {
            return Ok(None);
        }
        let tls = ca.into_iter().fold(Tls::new(), Tls::ca_pem);
        Ok(Some(client.into_iter().fold(tls, |tls, (certificates, key)| tls.client_pem(certificates, key))))
    }
}

fn read(setting: &'static str, file: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(file)
        .map_err(|cause| Error::config(ConfigProblem::File { setting, file: file.to_owned(), cause }))
}

named::deserialize_named!(NearfarConfig);

impl fmt::Debug for NearfarConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            url,
            connect_timeout,
            command_timeout,
            start_degraded,
            log_len,
            tls_ca_file,
            tls_certificate_file,
            tls_key_file,
            caches,
        } = self;
        f.debug_struct("NearfarConfig")
            .field("url", &url.as_ref().map(|_| "..."))
            .field("connect_timeout", connect_timeout)
            .field("command_timeout", command_timeout)
            .field("start_degraded", start_degraded)
            .field("log_len", log_len)
            .field("tls_ca_file", tls_ca_file)
            .field("tls_certificate_file", tls_certificate_file)
            .field("tls_key_file", tls_key_file)
            .field("caches", caches)
            .finish()
    }
}
