//! Where a server listens, and who may come in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::authority::{Authority, Certificate};
use crate::config::Config;

/// Where a server's own handle reaches it.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    Port(u16),
    Socket(PathBuf),
}

impl Door {
    /// Has a server open it.
    pub(crate) fn open(&self, config: &mut Config) {
        match self {
            Self::Port(port) => config.set("port", &port.to_string()),
            Self::Socket(path) => {
                config.set("port", "0");
                config.set("unixsocket", text(path));
            }
        }
    }
}

/// What a server with TLS has to have.
#[derive(Debug, Clone)]
pub(crate) struct TlsDoor {
    certificate: Certificate,
    /// Who signs the certificates that clients must show, if they must.
    clients: Option<String>,
}

impl TlsDoor {
    pub(crate) fn new(certificate: &Certificate, clients: Option<&Authority>) -> Self {
        Self {
            certificate: certificate.clone(),
            clients: clients.map(|authority| authority.pem().to_owned()),
        }
    }

    /// Has a server open it, and writes the files that it needs.
    pub(crate) fn open(&self, port: u16, files: &CertificateFiles, config: &mut Config) {
        files.write(&self.certificate);
        config.set("tls-port", &port.to_string());
        config.set("tls-cert-file", text(&files.certificate));
        config.set("tls-key-file", text(&files.key));
        config.set("tls-auth-clients", if self.clients.is_some() { "yes" } else { "no" });
        if let Some(pem) = &self.clients {
            write(&files.clients, pem);
            config.set("tls-ca-cert-file", text(&files.clients));
        }
    }
}

/// Where a server finds its certificates.
#[derive(Debug)]
pub(crate) struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    clients: PathBuf,
}

impl CertificateFiles {
    pub(crate) fn of(dir: &Path) -> Self {
        let file = |name| dir.join(name);
        Self { certificate: file("tls.pem"), key: file("tls.key"), clients: file("clients.pem") }
    }

    pub(crate) fn write(&self, certificate: &Certificate) {
        write(&self.certificate, &certificate.pem);
        write(&self.key, &certificate.key);
    }
}

fn write(file: &Path, contents: &str) {
    fs::write(file, contents).expect("the temporary folder is writable");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}
