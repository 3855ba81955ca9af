//! Headers that may carry a credential or an identity, and dependencies that get one of ours.
//!
//! They are recognized by their names: each service has names of its own for its keys, and a list
//! of the known ones would always lack the next.

use super::outbound::OutboundConfig;
use super::secret_names::is_secret_name;
use super::upstream_tls::UpstreamTls;

/// Parts of names of headers that carry credentials or an identity, or the result of checking them.
const PARTS: [&str; 17] = [
    "account",
    "auth",
    "client-cert",
    "client-id",
    "identity",
    "key",
    "login",
    "oidc",
    "organisation",
    "organization",
    "principal",
    "ssl-client",
    "subscription",
    "tenant",
    "token",
    "user",
    // Browsers have no other place for a token in such a request.
    "websocket-protocol",
];

/// Beginnings of names that carry an identity.
const BEGINNINGS: [&str; 9] = [
    "from",
    "remote-",
    "x-forwarded-client-cert",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-user",
    "x-org",
    "x-user",
];

/// Words that are an identity as a whole part of a header's name.
const IDENTITY_WORDS: [&str; 4] = ["cert", "email", "subject", "uid"];

/// Names that only look like one. A longer name is none of them: `x-original-authorization` is a
/// credential, as is all that a proxy keeps under such a beginning.
const OTHERS: [&str; 4] = [
    "idempotency-key",
    "sec-websocket-key",
    "user-agent",
    "x-user-agent",
];

/// Returns true if a header of this name, in lower case, may carry a credential or an identity.
pub(crate) fn is_credential_name(name: &str) -> bool {
    // EDGE-2: the exceptions are whole names, so that none hides a credential.
    if OTHERS.contains(&name) {
        return false;
    }
    let is_identity = |word: &str| IDENTITY_WORDS.contains(&word);
    BEGINNINGS.iter().any(|begin| name.starts_with(begin))
        || PARTS.iter().any(|part| name.contains(part))
        || name.split(['-', '_', '.']).any(is_identity)
        || is_secret_name(name)
}

/// Returns true if the requests to an HTTP dependency carry credentials of ours: in a header that is
/// set, by a certificate, or in its address. A 401 or 403 is then a fault of the configuration, else
/// of the caller.
pub(crate) fn holds_credentials(
    url: Option<&str>,
    outbound: &OutboundConfig,
    tls: Option<&UpstreamTls>,
) -> bool {
    let authority = url.and_then(|url| url.split_once("://")?.1.split(['/', '?', '#']).next());
    let mut names = outbound.headers.keys();
    // EDGE-1: one decision, for the classes of answers and for all else.
    names.any(|name| is_credential_name(&name.to_ascii_lowercase()))
        || tls.is_some_and(|tls| tls.cert.is_some())
        || authority.is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;

    #[test]
    fn edge_2_e2e_credentials_are_told_by_their_names() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "x-api-key",
            "ocp-apim-subscription-key",
            "x-goog-iap-jwt-assertion",
            "x-vault-token",
            "x-ms-client-principal-name",
            "x-forwarded-user",
            "remote-user",
            "x-user-id",
            "x-org-id",
            "openai-organization",
            "dpop",
            "sec-websocket-protocol",
            "x-original-authorization",
            "x-origin-api-key",
            "x-origin-token",
            "x-original-user",
            "x-ssl-client-s-dn",
            "x-sid",
            "x-pwd",
            "x-passcode",
            "x-pat",
            "x-mfa",
            "x-basic",
            "jenkins-crumb",
        ] {
            assert!(is_credential_name(name), "{name}");
        }
        for name in [
            "accept",
            "content-type",
            "idempotency-key",
            "user-agent",
            "x-request-id",
            "x-original-url",
            "x-origin",
            "x-user-agent",
            "x-side",
            "forwarded",
            "sec-websocket-key",
        ] {
            assert!(!is_credential_name(name), "{name}");
        }
    }

    #[test]
    fn edge_1_e1f_our_own_credentials_are_told_apart() {
        let holds = |url: &str, header: &str, cert: Option<&str>| {
            let headers = [(header.to_owned(), Secret::new("x"))];
            let outbound = OutboundConfig {
                headers: headers.into(),
                ..OutboundConfig::default()
            };
            let tls = UpstreamTls {
                cert: cert.map(Into::into),
                ..UpstreamTls::default()
            };
            holds_credentials(Some(url), &outbound, Some(&tls))
        };
        assert!(!holds("https://a/b@c", "x-team", None));
        assert!(!holds("https://a", "user-agent", None));
        assert!(holds("https://a", "X-Api-Key", None));
        assert!(holds("https://a", "authorization", None));
        assert!(holds("https://a", "x-team", Some("a.pem")));
        assert!(holds("https://me:s3cret@a/b", "x-team", None));
    }
}
