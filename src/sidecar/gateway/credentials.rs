//! Headers and parameters of a request that may carry a credential or an identity.
//!
//! They are recognized by their names: each service has names of its own for its keys, and a list
//! of the known ones would always lack the next.

use http::{HeaderMap, HeaderName};

use super::headers::IDEMPOTENCY;

/// Parts of names that carry credentials, or the result of checking them.
const PARTS: [&str; 29] = [
    "account",
    "assertion",
    "auth",
    "bearer",
    "client-cert",
    "client-id",
    "cookie",
    "credential",
    "csrf",
    "dpop",
    "identity",
    "jwt",
    "key",
    "login",
    "oidc",
    "organisation",
    "organization",
    "passw",
    "principal",
    "saml",
    "secret",
    "session",
    "signature",
    "subscription",
    "tenant",
    "token",
    "user",
    // Browsers have no other place for a token in such a request.
    "websocket-protocol",
    "xsrf",
];

/// Beginnings of names that carry an identity.
const BEGINNINGS: [&str; 10] = [
    "from",
    "remote-",
    "ssl-client-",
    "x-forwarded-client-cert",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-user",
    "x-org",
    "x-user",
];

/// Names that only look like one.
const OTHERS: [&str; 5] = [
    "sec-websocket-key",
    "user-agent",
    "x-origin",
    "x-original",
    "x-user-agent",
];

/// Names of parameters in a query that are credentials in themselves. `key` and `token` are not
/// among them: they are also names of plain values.
const PARAMETERS: [&str; 18] = [
    "access_key",
    "access_token",
    "api-key",
    "api_key",
    "api_token",
    "apikey",
    "auth",
    "auth_token",
    "client_secret",
    "id_token",
    "jwt",
    "passwd",
    "password",
    "secret",
    "sig",
    "signature",
    "x-amz-security-token",
    "x-amz-signature",
];

/// Returns true if a header of this name may carry a credential or an identity of the caller.
pub(super) fn is_credential(name: &HeaderName) -> bool {
    if *name == IDEMPOTENCY {
        return false;
    }
    let name = name.as_str();
    if OTHERS.iter().any(|other| name.starts_with(other)) {
        return false;
    }
    BEGINNINGS.iter().any(|begin| name.starts_with(begin))
        || PARTS.iter().any(|part| name.contains(part))
}

/// Removes all credentials from a set of headers.
pub(super) fn strip(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_credential(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}

/// Returns the target without the parameters that are credentials.
pub(super) fn without_secrets(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    let is_plain = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        !PARAMETERS
            .iter()
            .any(|secret| name.eq_ignore_ascii_case(secret))
    };
    let plain: Vec<&str> = query.split('&').filter(is_plain).collect();
    if plain.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{}", plain.join("&"))
}

#[cfg(test)]
mod tests {
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
        ] {
            assert!(is_credential(&HeaderName::from_static(name)), "{name}");
        }
        for name in [
            "accept",
            "content-type",
            "idempotency-key",
            "user-agent",
            "x-request-id",
            "x-original-url",
            "forwarded",
            "sec-websocket-key",
        ] {
            assert!(!is_credential(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn edge_2_e2e_parameters_that_are_credentials_are_taken_out() {
        for (target, plain) in [
            ("/a", "/a"),
            ("/a?q=1&Api_Key=s&r", "/a?q=1&r"),
            ("/a?access_token=s", "/a"),
            ("/a?key=1&page_token=2", "/a?key=1&page_token=2"),
        ] {
            assert_eq!(without_secrets(target), plain);
        }
    }
}
