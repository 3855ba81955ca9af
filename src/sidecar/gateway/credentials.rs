//! Headers and parameters of a request that may carry a credential or an identity, and their
//! removal.
//!
//! Both are told by patterns of their names, wherever they stand: in the target, and in each address
//! that a header or a parameter holds. A parameter that names a person, an account or a tenant is no
//! credential: it says which thing is asked for.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::path::decode;
use crate::config::{is_credential_name, is_secret_name};

/// Number of addresses within each other that are looked into. A deeper one goes no further.
const MAX_DEPTH: u32 = 3;

/// Words of the names of parameters that carry credentials, beside those of all names.
const PARAMETER_WORDS: [&str; 2] = ["cert", "uid"];

/// Ends of such names.
const PARAMETER_ENDS: [&str; 3] = ["key", "token", "tokenid"];

/// Ends of names that only look like one: places in a list, and fields to sort by.
const PLAIN_ENDS: [&str; 12] = [
    "continuationtoken",
    "cursortoken",
    "foreignkey",
    "idempotencykey",
    "nexttoken",
    "pagetoken",
    "paginationtoken",
    "partitionkey",
    "resumetoken",
    "sortkey",
    "startkey",
    "synctoken",
];

/// Returns true if a header of this name may carry a credential or an identity of the caller.
pub(super) fn is_credential(name: &HeaderName) -> bool {
    is_credential_name(name.as_str())
}

/// Removes all credentials from a set of headers, and from the addresses in it.
pub(super) fn strip(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_credential(name))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
    for value in headers.values_mut() {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        // EDGE-2: a referer, or the target as a proxy got it, is an address with the same parameters.
        if let Some(plain) = is_address(&text).then(|| without_secrets(&text))
            && plain != text
        {
            *value = HeaderValue::try_from(plain).unwrap_or(HeaderValue::from_static(""));
        }
    }
}

/// Returns an address or a target without a password, and without the parameters that may be
/// credentials.
pub(super) fn without_secrets(target: &str) -> String {
    cleaned(target, MAX_DEPTH)
}

/// Returns true if a text is an address, or has one in it.
fn is_address(text: &str) -> bool {
    text.starts_with('/') || text.contains("://")
}

fn cleaned(target: &str, depth: u32) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let parts = without_password(path);
    // EDGE-2: sessions are also in the parameters of a path (RFC 3986, section 3.3).
    let parts = parts.split('/').map(|part| {
        let mut pieces = part.split(';');
        let name = pieces.next().into_iter();
        let plain = name.chain(pieces.filter(|pair| is_plain(pair, depth)));
        plain.collect::<Vec<_>>().join(";")
    });
    let path = parts.collect::<Vec<_>>().join("/");
    let Some(query) = query else {
        return path;
    };
    // Some servers take a semicolon for a separator too.
    let plain: Vec<String> = query
        .split('&')
        .filter_map(|pairs| {
            let pairs = pairs.split(';').filter(|pair| is_plain(pair, depth));
            let plain: Vec<&str> = pairs.collect();
            (!plain.is_empty()).then(|| plain.join(";"))
        })
        .collect();
    if plain.is_empty() {
        return path;
    }
    format!("{path}?{}", plain.join("&"))
}

/// Returns the begin of an address without the name and the password in front of its host.
fn without_password(path: &str) -> String {
    let Some((scheme, rest)) = path.split_once("://") else {
        return path.to_owned();
    };
    let (authority, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{rest}")
}

/// Returns true for a parameter that carries no credential, in its own value or in an address there.
fn is_plain(pair: &str, depth: u32) -> bool {
    let text = |part: &str| String::from_utf8_lossy(&decode(part.as_bytes())).into_owned();
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    if is_secret_parameter(&text(name)) {
        return false;
    }
    let value = text(value);
    !is_address(&value) || depth > 0 && cleaned(&value, depth - 1) == value
}

/// Returns true if a parameter of this name, decoded, may be a credential.
fn is_secret_parameter(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // EDGE-2: what authorizes is told by a pattern, as in headers; a list would lack the next name.
    let separators = |letter: char| !letter.is_ascii_alphanumeric();
    let bare: String = name.split(separators).collect();
    // An author is no authority to do something.
    let authority = bare.replace("authoriz", "auth").replace("authoris", "auth");
    let is_auth = authority.replace("author", "").contains("auth");
    let is_place = PLAIN_ENDS.iter().any(|end| bare.ends_with(end));
    // The code of OAuth; those of countries and currencies have longer names.
    let is_code = name == "code";
    let is_secret = |word: &str| PARAMETER_WORDS.contains(&word);
    is_auth
        || is_code
        || is_secret_name(&name)
        || name.split(separators).any(is_secret)
        || !is_place && PARAMETER_ENDS.iter().any(|end| bare.ends_with(end))
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
            ("/a?key=1&page_token=2", "/a?page_token=2"),
            ("/a?q=1;token=s&r", "/a?q=1&r"),
            ("/a?t%6Fken=s&%5Ftoken=s&user%5Bpassword%5D=s&q", "/a?q"),
            ("/a;jsessionid=s", "/a"),
            ("/a;v=1;jsessionid=s/b;x?q", "/a;v=1/b;x?q"),
            ("/a;;v=1//b;?", "/a;;v=1//b;?"),
            ("https://me:s@a/b?q", "https://a/b?q"),
            ("/a?to=https%3A%2F%2Fb%2Fc%3Ftoken%3Ds&q", "/a?q"),
            (
                "/a?to=https%3A%2F%2Fb%2Fc%3Fr%3D1&q",
                "/a?to=https%3A%2F%2Fb%2Fc%3Fr%3D1&q",
            ),
            ("/a?to=/b?to=/c?to=/d?to=/e&q", "/a?q"),
        ] {
            assert_eq!(without_secrets(target), plain);
        }
    }

    #[test]
    fn edge_2_e2e_parameters_are_told_by_the_pattern_of_their_names() {
        for secret in [
            "key",
            "token",
            "session",
            "sessionid",
            "pwd",
            "refresh_token",
            "app_key",
            "hapikey",
            "subscription-key",
            "x-goog-signature",
            "X-Goog-Credential",
            "AWSAccessKeyId",
            "credential",
            "client_assertion",
            "api-token",
            "apiToken",
            "oauth_nonce",
            "authorization",
            "sig",
            "code",
            "otp",
            "jwt",
            "client_secret",
            "userpassword",
            "PHPSESSID",
            "sign",
            "code_verifier",
        ] {
            assert_eq!(
                without_secrets(&format!("/a?{secret}=s&q=1")),
                "/a?q=1",
                "{secret}"
            );
        }
        for plain in [
            "q",
            "user",
            "account",
            "tenant",
            "page_token",
            "pageToken",
            "next_token",
            "nextPageToken",
            "continuation-token",
            "sort_key",
            "sortKey",
            "partition_key",
            "keyword",
            "max_tokens",
            "author",
            "authors",
            "co_author_id",
            "country_code",
            "email",
            "design",
            "side",
            "exclusive_start_key",
        ] {
            let target = format!("/a?{plain}=s&q=1");
            assert_eq!(without_secrets(&target), target, "{plain}");
        }
    }

    #[test]
    fn edge_2_e2e_addresses_in_headers_have_no_credentials() {
        for (given, plain) in [
            (
                "https://app.example/cb?access_token=s&q",
                "https://app.example/cb?q",
            ),
            ("/p?token=s", "/p"),
            ("/p;jsessionid=s?q=1", "/p?q=1"),
            ("https://me:s@a/", "https://a/"),
            ("a?token=s", "a?token=s"),
            ("text/html; q=0.5", "text/html; q=0.5"),
        ] {
            let mut headers = HeaderMap::new();
            for name in ["referer", "x-original-uri", "x-pat"] {
                headers.insert(name, HeaderValue::from_static(given));
            }
            strip(&mut headers);
            assert_eq!(headers.len(), 2);
            assert_eq!(headers["referer"], plain);
            assert_eq!(headers["x-original-uri"], plain);
        }
        // As long as a head can be: no depth of it is a depth of calls.
        let deep = "/?a=".repeat(16_000);
        assert!(without_secrets(&deep).len() < deep.len());
    }
}
