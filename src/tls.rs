//! TLS configuration of client connections. The crypto provider is named here, so that none is
//! looked up at run time.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::ClientConfig;

/// Returns a configuration with the system's certificate authorities, or Mozilla's if it has none.
///
/// # Errors  The provider supports no safe version of TLS.
pub(crate) fn client() -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = || {
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let config = config.with_safe_default_protocol_versions();
        config.map_err(|error| error.to_string())
    };
    let config = match versions()?.with_native_roots() {
        Ok(config) => config,
        Err(_none) => versions()?.with_webpki_roots(),
    };
    Ok(config.with_no_client_auth())
}
