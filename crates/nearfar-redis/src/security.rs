//! How the connections to a server are secured, whichever its address is.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{ConnectError, UrlProblem};
use crate::tls::Tls;

#[cfg(not(feature = "tls"))]
use absent as implementation;
#[cfg(feature = "tls")]
use rustls as implementation;

#[cfg(feature = "tls")]
mod rustls;

pub(crate) use implementation::Security;

/// A way for bytes to a server and back.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Security {
    /// `asked` is whether the URL asks for TLS. Settings for it without asking for it are refused: who gave them believes
    /// that the password is safe.
    pub(crate) fn of(asked: bool, tls: Option<&Tls>) -> Result<Self, ConnectError> {
        match (asked, tls) {
            (true, tls) => Self::tls(&tls.cloned().unwrap_or_default()),
            (false, Some(_)) => Err(ConnectError::BadUrl(UrlProblem::TlsUnused)),
            (false, None) => Ok(Self::none()),
        }
    }
}

#[cfg(not(feature = "tls"))]
mod absent {
    use std::io;

    use fred::types::config::{Config, Server};
    use tokio::net::TcpStream;

    use super::Stream;
    use crate::error::{ConnectError, UrlProblem};
    use crate::tls::{Tls, TlsProblem};

    #[derive(Clone)]
    pub(crate) struct Security;

    impl Security {
        pub(super) fn none() -> Self {
            Self
        }

        pub(super) fn tls(_tls: &Tls) -> Result<Self, ConnectError> {
            Err(ConnectError::BadUrl(UrlProblem::TlsNotBuilt))
        }

        #[expect(clippy::unused_self, reason = "the other implementation uses it")]
        pub(crate) fn apply(&self, _config: &mut Config) {}

        #[expect(clippy::unused_async, reason = "the other implementation waits")]
        pub(crate) async fn wrap(&self, _host: &str, socket: TcpStream) -> io::Result<Box<dyn Stream>> {
            Ok(Box::new(socket))
        }

        #[expect(clippy::unused_async, reason = "the other implementation waits")]
        pub(crate) async fn diagnose(&self, _servers: &[Server]) -> Option<TlsProblem> {
            None
        }

        #[expect(clippy::unused_async, reason = "the other implementation waits")]
        pub(crate) async fn meets_plain(&self, _servers: &[Server]) -> bool {
            false
        }
    }
}

#[cfg(all(test, not(feature = "tls")))]
mod tests {
    use super::*;

    #[test]
    fn tls_is_refused_where_it_is_not_compiled_in() {
        for tls in [None, Some(&Tls::new())] {
            let error = Security::of(true, tls).err().unwrap();
            assert_eq!(error, ConnectError::BadUrl(UrlProblem::TlsNotBuilt));
        }
    }
}
