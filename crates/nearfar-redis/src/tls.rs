use std::fmt;
use std::sync::Arc;

use crate::error::Cause;

/// Whom to believe, and what to show, on a connection with TLS: for URLs that begin with `rediss` or `valkeys`.
///
/// The server's certificate must be signed by a trusted authority, be valid now, and be for the host or the address in
/// the URL. Nothing switches that off.
///
/// ```
/// use nearfar_redis::Tls;
///
/// # let (ca, certificate, key) = ("ca", "certificate", "secret"); // read from files, say
/// let tls = Tls::new().ca_pem(ca).client_pem(certificate, key);
/// assert!(!format!("{tls:?}").contains("secret"));
/// ```
#[derive(Clone, Default)]
pub struct Tls {
    pub(crate) ca: Option<Arc<[u8]>>,
    pub(crate) client: Option<ClientPem>,
}

#[derive(Clone)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "what is refused is not read"))]
pub(crate) struct ClientPem {
    pub(crate) certificates: Arc<[u8]>,
    pub(crate) key: Arc<[u8]>,
}

impl Tls {
    /// The system's authorities, and no certificate of this side: the same as saying nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Authorities to trust **instead of** the system's: one or more certificates in PEM, the contents of a file rather
    /// than its path. Defaults to the system's, since that is where certificates of public services come from.
    pub fn ca_pem(mut self, certificates: impl AsRef<[u8]>) -> Self {
        self.ca = Some(certificates.as_ref().into());
        self
    }

    /// What this side shows to a server that asks who it is (`tls-auth-clients`, on by default in Redis and Valkey): its
    /// certificate, followed by those of the authorities between if there are any, and the key, unencrypted, both in
    /// PEM. Defaults to nothing.
    pub fn client_pem(mut self, certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.client =
            Some(ClientPem { certificates: certificates.as_ref().into(), key: key.as_ref().into() });
        self
    }
}

impl fmt::Debug for Tls {
    /// Says what there is, and shows none of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("ca", &self.ca.is_some()).field("client", &self.client.is_some()).finish()
    }
}

/// Why the settings in [`Tls`] cannot be used. Nothing of them is kept.
///
/// ```
/// assert!(nearfar_redis::TlsSettingProblem::ClientKey.to_string().contains("client_pem"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsSettingProblem {
    /// What [`Tls::ca_pem`] was given has no certificate, or one that cannot be read.
    Ca,
    /// The certificate that [`Tls::client_pem`] was given cannot be read.
    ClientCertificate,
    /// The key that [`Tls::client_pem`] was given cannot be read.
    ClientKey,
    /// The key that [`Tls::client_pem`] was given is not that of the certificate.
    ClientPair,
    /// No [`Tls::ca_pem`] was given, and the system has no authorities.
    NoSystemCa,
    /// The process's default `rustls::crypto::CryptoProvider` has neither TLS 1.2 nor 1.3.
    NoVersion,
}

impl fmt::Display for TlsSettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ca => "what `ca_pem` was given holds no certificates in PEM",
            Self::ClientCertificate => "the certificate that `client_pem` was given is none in PEM",
            Self::ClientKey => "the key that `client_pem` was given is no unencrypted private key in PEM",
            Self::ClientPair => "the key that `client_pem` was given is not that of its certificate",
            Self::NoSystemCa => {
                "this system has no certificate authorities to trust: install them, or set `ca_pem`"
            }
            Self::NoVersion => "this process's cryptography has neither TLS 1.2 nor 1.3",
        })
    }
}

/// Why no connection with TLS comes about.
///
/// ```
/// assert!(nearfar_redis::TlsProblem::UnknownCa.to_string().contains("ca_pem"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The server's certificate is not signed by an authority that is trusted here.
    UnknownCa,
    /// The server's certificate is for other names or addresses than the one in the URL.
    WrongName,
    /// The server's certificate is valid no more, or not yet.
    NotValidNow,
    /// The server's certificate is refused for another reason.
    BadCertificate(Cause),
    /// The server asks for a certificate, and there is none to show.
    ClientCertificateRequired,
    /// The server does not accept the certificate that it was shown.
    ClientCertificateRefused(Cause),
    /// The URL asks for TLS, and the server speaks plain text.
    ServerIsPlain,
    /// The URL asks for plain text, and the server speaks TLS.
    ServerIsTls,
    /// Something else, such as no version of TLS in common.
    Other(Cause),
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownCa => write!(
                f,
                "its certificate is signed by no authority that is trusted here: `ca_pem` names the right one"
            ),
            Self::WrongName => write!(f, "its certificate is for other names than the one in the URL"),
            Self::NotValidNow => write!(f, "its certificate has expired, or is not valid yet"),
            Self::BadCertificate(cause) => write!(f, "its certificate is refused: {cause}"),
            Self::ClientCertificateRequired => {
                write!(f, "it asks for a certificate of this side: `client_pem` gives one")
            }
            Self::ClientCertificateRefused(cause) => {
                write!(f, "it refuses the certificate that `client_pem` gives: {cause}")
            }
            Self::ServerIsPlain => {
                write!(f, "it does not speak TLS, which the URL asks for: `redis://` goes without")
            }
            Self::ServerIsTls => {
                write!(f, "it speaks TLS, which the URL does not ask for: `rediss://` does")
            }
            Self::Other(cause) => cause.fmt(f),
        }
    }
}
