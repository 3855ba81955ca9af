//! TLS configuration of client connections. The crypto provider is named here, so that none is
//! looked up at run time.

#[cfg(feature = "gateway")]
use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
#[cfg(feature = "gateway")]
use rustls::RootCertStore;
use rustls::client::WantsClientCert;
#[cfg(feature = "gateway")]
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::{ClientConfig, ConfigBuilder, WantsVerifier};

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
    let certificates = |key: &str, path: &Path| -> Result<Vec<_>, String> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let read: Vec<CertificateDer<'static>> =
            read.map_err(|error| format!("{key} cannot be read: {error}"))?;
        if read.is_empty() {
            return Err(format!("{key} holds no certificate in PEM format"));
        }
        Ok(read)
    };
    let config = match ca {
        None => with_system_roots()?,
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls.ca", path)? {
                let added = roots.add(certificate);
                added.map_err(|error| format!("tls.ca cannot be used: {error}"))?;
            }
            versions()?.with_root_certificates(roots)
        }
    };
    let Some((cert, key)) = identity else {
        return Ok(config.with_no_client_auth());
    };
    let chain = certificates("tls.cert", cert)?;
    let key = PrivateKeyDer::from_pem_file(key);
    let key = key.map_err(|error| format!("tls.key cannot be read: {error}"))?;
    let config = config.with_client_auth_cert(chain, key);
    config.map_err(|error| format!("tls.cert and tls.key cannot be used: {error}"))
}

type WithVersions = ConfigBuilder<ClientConfig, WantsVerifier>;
type WithRoots = ConfigBuilder<ClientConfig, WantsClientCert>;

fn versions() -> Result<WithVersions, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions();
    config.map_err(|error| error.to_string())
}

fn with_system_roots() -> Result<WithRoots, String> {
    Ok(match versions()?.with_native_roots() {
        Ok(config) => config,
        Err(_none) => versions()?.with_webpki_roots(),
    })
}
