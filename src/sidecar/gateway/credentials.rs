//! Headers and parameters of a request that may carry a credential or an identity, and their
//! removal.

use http::{HeaderMap, HeaderName};

use crate::config::is_credential_name;

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
    is_credential_name(name.as_str())
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
