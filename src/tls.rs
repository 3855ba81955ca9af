//! How connections are secured on which we are the client: one provider, named here, so that none
//! is looked for at run time.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::ClientConfig;

/// The system's certificate authorities; where it has none, those that Mozilla trusts.
///
/// # Errors  The provider has no version of TLS that is safe.
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
