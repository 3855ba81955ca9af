//! The section `gateway.tls`: certificates of the gateway's own listener.

use std::path::PathBuf;

use super::section::Section;
use super::upstream_tls::{check_pair, check_swapped, pem_file};

/// Files of the gateway's own TLS, in PEM format.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayTls {
    /// The certificate that callers see, and its chain.
    pub cert: PathBuf,
    /// The private key of [`GatewayTls::cert`].
    pub key: PathBuf,
    /// The authorities that sign the certificates of callers. With them, a caller without such a
    /// certificate is refused.
    pub client_ca: Option<PathBuf>,
}

/// Reads `gateway.tls`.
pub(super) fn read(mut section: Section<'_>) -> Option<GatewayTls> {
    let is_given = section.present;
    let cert = pem_file(&mut section, "cert");
    let key = pem_file(&mut section, "key");
    let client_ca = pem_file(&mut section, "client_ca");
    check_pair(&section);
    check_swapped(&section, cert.as_deref());
    if is_given && !section.has("cert") && !section.has("key") {
        let reason = "tls.cert and tls.key are missing";
        section.conflict_here(reason, "both tls.cert and tls.key, or to leave it out");
    }
    section.finish();
    let (cert, key) = cert.zip(key)?;
    Some(GatewayTls {
        cert,
        key,
        client_ca,
    })
}
