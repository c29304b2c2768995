use std::io;
use std::sync::Arc;

use fred::rustls::client::ClientConfig;
use fred::rustls::crypto::{CryptoProvider, ring};
use fred::rustls::pki_types::pem::PemObject;
use fred::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use fred::rustls::{AlertDescription, CertificateError, Error as RustlsError, RootCertStore};
use fred::types::config::{Config, Server, TlsConnector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Stream;
use crate::error::{Cause, ConnectError};
use crate::tls::{ClientPem, Tls, TlsProblem, TlsSettingProblem};

/// Plain text, or TLS by rustls.
#[derive(Clone)]
pub(crate) struct Security(Option<Arc<ClientConfig>>);

impl Security {
    pub(super) fn none() -> Self {
        Self(None)
    }

    pub(super) fn tls(tls: &Tls) -> Result<Self, ConnectError> {
        client_config(tls).map(|config| Self(Some(config.into()))).map_err(ConnectError::BadTls)
    }

    pub(crate) fn apply(&self, config: &mut Config) {
        config.tls =
            self.0.clone().map(|tls| TlsConnector::from(tokio_rustls::TlsConnector::from(tls)).into());
    }

    /// Says hello on a new connection, if that is to be with TLS.
    pub(crate) async fn wrap(&self, host: &str, socket: TcpStream) -> io::Result<Box<dyn Stream>> {
        let Some(config) = &self.0 else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, socket).await?))
    }

    /// What of TLS is wrong with these servers. Asked once a connection has failed, because fred tells only in words what
    /// rustls says in types, and may have lost the server's last words in a reset.
    pub(crate) async fn diagnose(&self, servers: &[Server]) -> Option<TlsProblem> {
        for server in servers {
            let problem = match &self.0 {
                Some(config) => handshake(config, server).await.err().and_then(|error| problem(&error)),
                None => speaks_tls(server).await.then_some(TlsProblem::ServerIsTls),
            };
            if problem.is_some() {
                return problem;
            }
        }
        None
    }

    /// Whether one of these servers answers in plain text although TLS is asked for. To a hello of TLS, Redis without it
    /// says nothing at all: it waits for the end of a line.
    pub(crate) async fn meets_plain(&self, servers: &[Server]) -> bool {
        if self.0.is_none() {
            return false;
        }
        for server in servers {
            if speaks_plain(server).await.unwrap_or(false) {
                return true;
            }
        }
        false
    }
}

fn client_config(tls: &Tls) -> Result<ClientConfig, TlsSettingProblem> {
    let roots = tls.ca.as_deref().map_or_else(system_roots, given_roots)?;
    // What the service has chosen for all of its TLS goes first. Asking rustls for its default would panic where two
    // providers are compiled in.
    let provider = CryptoProvider::get_default().cloned().unwrap_or_else(|| ring::default_provider().into());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsSettingProblem::NoVersion)?
        .with_root_certificates(roots);
    let Some(client) = &tls.client else { return Ok(builder.with_no_client_auth()) };
    let (chain, key) = client_pair(client)?;
    builder.with_client_auth_cert(chain, key).map_err(|_| TlsSettingProblem::ClientPair)
}

fn given_roots(pem: &[u8]) -> Result<RootCertStore, TlsSettingProblem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).ok_or(TlsSettingProblem::Ca)? {
        roots.add(certificate).map_err(|_| TlsSettingProblem::Ca)?;
    }
    Ok(roots)
}

/// Those that cannot be read are left out, as everywhere: on most systems some are.
fn system_roots() -> Result<RootCertStore, TlsSettingProblem> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(fred::rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TlsSettingProblem::NoSystemCa) } else { Ok(roots) }
}

fn client_pair(
    client: &ClientPem,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsSettingProblem> {
    let chain = certificates(&client.certificates).ok_or(TlsSettingProblem::ClientCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(&client.key).map_err(|_| TlsSettingProblem::ClientKey)?;
    Ok((chain, key))
}

/// `None` if there is none, or one of them is damaged.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

/// Says hello. A server with TLS 1.3 gives its verdict on the client's certificate only after the client has begun to
/// talk.
async fn handshake(config: &Arc<ClientConfig>, server: &Server) -> io::Result<()> {
    let name = ServerName::try_from(server.host.to_string()).map_err(io::Error::other)?;
    let socket = TcpStream::connect((&*server.host, server.port)).await?;
    let mut stream = tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, socket).await?;
    // A server that has refused may have closed already; why is still to be read.
    let _ = stream.write_all(b"PING\r\n").await;
    stream.read(&mut [0]).await.map(drop)
}

async fn speaks_plain(server: &Server) -> io::Result<bool> {
    let mut socket = TcpStream::connect((&*server.host, server.port)).await?;
    socket.write_all(b"PING\r\n").await?;
    // A status or an error.
    Ok(matches!(socket.read_u8().await?, b'+' | b'-'))
}

/// Whether the server answers as only TLS does. Nothing is trusted here, so it is never a success.
async fn speaks_tls(server: &Server) -> bool {
    let Ok(builder) = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
    else {
        return false;
    };
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let outcome = handshake(&config.into(), server).await;
    let error = outcome.err();
    let said = error.as_ref().and_then(rustls_error);
    matches!(said, Some(RustlsError::InvalidCertificate(_) | RustlsError::AlertReceived(_)))
}

fn rustls_error(error: &io::Error) -> Option<&RustlsError> {
    error.get_ref()?.downcast_ref()
}

/// `None` if it is not about TLS.
fn problem(error: &io::Error) -> Option<TlsProblem> {
    Some(match rustls_error(error)? {
        RustlsError::InvalidCertificate(reason) => certificate_problem(reason),
        RustlsError::AlertReceived(alert) => alert_problem(*alert),
        RustlsError::InvalidMessage(_) => TlsProblem::ServerIsPlain,
        other => TlsProblem::Other(Cause::of(other)),
    })
}

fn certificate_problem(reason: &CertificateError) -> TlsProblem {
    match reason {
        // The second is of an authority that goes by the name of one that is trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TlsProblem::UnknownCa,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsProblem::WrongName
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => TlsProblem::NotValidNow,
        other => TlsProblem::BadCertificate(Cause::of(other)),
    }
}

fn alert_problem(alert: AlertDescription) -> TlsProblem {
    let cause = Cause::of(&RustlsError::AlertReceived(alert));
    match alert {
        AlertDescription::CertificateRequired => TlsProblem::ClientCertificateRequired,
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError => TlsProblem::ClientCertificateRefused(cause),
        _ => TlsProblem::Other(cause),
    }
}
