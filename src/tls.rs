//! TLS configuration of connections, ours and callers'. The crypto provider is named here, so that
//! none is looked up at run time.

#[cfg(feature = "gateway")]
use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
#[cfg(feature = "gateway")]
use rustls::RootCertStore;
use rustls::client::WantsClientCert;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "gateway")]
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
#[cfg(feature = "gateway")]
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};
#[cfg(feature = "gateway")]
use rustls::{InconsistentKeys, ServerConfig};

/// Returns a configuration with the system's certificate authorities, or Mozilla's if it has none.
///
/// # Errors  The provider supports no safe version of TLS.
pub(crate) fn client() -> Result<ClientConfig, String> {
    Ok(with_system_roots()?.with_no_client_auth())
}

/// Returns a configuration with certificate authorities from a file, and with a certificate and its
/// key, each where given.
///
/// # Errors  A file cannot be read, or does not hold what it should.
#[cfg(feature = "gateway")]
pub(crate) fn client_of(
    ca: Option<&Path>,
    identity: Option<(&Path, &Path)>,
) -> Result<ClientConfig, String> {
    let config = match ca {
        None => with_system_roots()?,
        Some(path) => versions()?.with_root_certificates(roots("tls.ca", path)?),
    };
    let Some((cert, key)) = identity else {
        return Ok(config.with_no_client_auth());
    };
    let (chain, key) = read_identity(cert, key)?;
    config.with_client_auth_cert(chain, key).map_err(unusable)
}

/// Returns the configuration of a listener: its certificate with its key, and the authorities of
/// callers' certificates, where callers must show one.
///
/// # Errors  As [`client_of`].
#[cfg(feature = "gateway")]
pub(crate) fn server_of(
    cert: &Path,
    key: &Path,
    client_ca: Option<&Path>,
) -> Result<ServerConfig, String> {
    let config = ServerConfig::builder_with_provider(provider());
    let config = config.with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    let (chain, key) = read_identity(cert, key)?;
    let config = match client_ca {
        None => config.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots("tls.client_ca", path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            let verifier =
                verifier.map_err(|error| format!("tls.client_ca cannot be used: {error}"))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    config.with_single_cert(chain, key).map_err(unusable)
}

/// `name`: the key of the file.
#[cfg(feature = "gateway")]
fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|error| format!("{name} cannot be read: {error}"))?;
    if read.is_empty() {
        return Err(format!("{name} holds no certificate in PEM format"));
    }
    Ok(read)
}

#[cfg(feature = "gateway")]
fn roots(name: &str, path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(name, path)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("{name} cannot be used: {error}"))?;
    }
    Ok(roots)
}

/// A certificate with its chain, and its key.
#[cfg(feature = "gateway")]
type TlsIdentity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

#[cfg(feature = "gateway")]
fn read_identity(cert: &Path, key: &Path) -> Result<TlsIdentity, String> {
    let chain = certificates("tls.cert", cert)?;
    let key = PrivateKeyDer::from_pem_file(key);
    let key = key.map_err(|error| format!("tls.key cannot be read: {error}"))?;
    Ok((chain, key))
}

#[cfg(feature = "gateway")]
fn unusable(error: rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "tls.key is not the key of the certificate in tls.cert".to_owned()
        }
        error => format!("tls.cert and tls.key cannot be used: {error}"),
    }
}

type WithVersions = ConfigBuilder<ClientConfig, WantsVerifier>;
type WithRoots = ConfigBuilder<ClientConfig, WantsClientCert>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn versions() -> Result<WithVersions, String> {
    let config = ClientConfig::builder_with_provider(provider());
    let config = config.with_safe_default_protocol_versions();
    config.map_err(|error| error.to_string())
}

fn with_system_roots() -> Result<WithRoots, String> {
    Ok(match versions()?.with_native_roots() {
        Ok(config) => config,
        Err(_none) => versions()?.with_webpki_roots(),
    })
}
