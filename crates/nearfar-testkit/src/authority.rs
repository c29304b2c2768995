//! Certificates.

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

/// A certificate authority of the test's own, which nobody trusts who is not told to.
///
/// ```
/// use nearfar_testkit::{Authority, Validity};
///
/// let authority = Authority::new("ours");
/// let certificate = authority.issue(&["localhost", "127.0.0.1"], Validity::Now);
/// assert!(certificate.pem.starts_with("-----BEGIN CERTIFICATE-----"));
/// ```
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its private key, both in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub pem: String,
    /// Its key.
    pub key: String,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// As long as any test runs.
    Now,
    /// Until the year 2001.
    Expired,
    /// From the year 4000 on.
    NotYet,
}

impl Authority {
    /// An authority of this name with a key of its own.
    ///
    /// # Panics
    ///
    /// If the system has no randomness.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("there is randomness");
        let pem = params.self_signed(&key).expect("the parameters are sound").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The certificate of the authority itself, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names and addresses, for either end of a connection.
    ///
    /// # Panics
    ///
    /// If a name is none.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| subject(name)).collect();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        match validity {
            Validity::Now => {}
            Validity::Expired => params.not_after = rcgen::date_time_ymd(2001, 1, 1),
            Validity::NotYet => params.not_before = rcgen::date_time_ymd(4000, 1, 1),
        }
        let key = KeyPair::generate().expect("there is randomness");
        let pem = params.signed_by(&key, &self.issuer).expect("the parameters are sound").pem();
        Certificate { pem, key: key.serialize_pem() }
    }
}

fn subject(name: &str) -> SanType {
    match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(Ia5String::try_from(name).expect("it is a host name")),
    }
}
