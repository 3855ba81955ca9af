//! The places of a key in a request.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};

use super::Api;

/// The headers in which a dialect, or a provider of its shape, takes a key.
const KEY_HEADERS: [&str; 4] = ["authorization", "api-key", "x-api-key", "x-goog-api-key"];

impl Api {
    /// Returns the header of the dialect's key.
    #[must_use]
    pub const fn key_header(self) -> HeaderName {
        match self {
            Self::OpenAi => AUTHORIZATION,
            Self::Anthropic => HeaderName::from_static("x-api-key"),
            Self::Google => HeaderName::from_static("x-goog-api-key"),
        }
    }
}

/// Removes the caller's key from all headers that carry one.
pub fn remove_keys(headers: &mut HeaderMap) {
    for name in KEY_HEADERS {
        headers.remove(name);
    }
}

/// Replaces the caller's key in all headers by a key of ours. `header`: the place of the key, if it
/// is not the dialect's own; in `authorization` it is a bearer token.
///
/// # Errors  The key has letters that no header may contain. No key is left in the headers then.
pub fn put_key(
    headers: &mut HeaderMap,
    api: Api,
    header: Option<&HeaderName>,
    key: &str,
) -> Result<(), InvalidHeaderValue> {
    // LLM-14: in every place, so that no provider sees a key of another one.
    remove_keys(headers);
    let name = header.cloned().unwrap_or_else(|| api.key_header());
    let mut value = if name == AUTHORIZATION {
        HeaderValue::try_from(format!("Bearer {key}"))?
    } else {
        HeaderValue::try_from(key)?
    };
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

/// Returns a path with its query without Google's `key` argument.
#[must_use]
pub fn without_key_in_query(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else {
        return Cow::Borrowed(target);
    };
    // LLM-14: the provider decodes a name before it reads it.
    let is_key = |part: &&str| {
        let mut named = form_urlencoded::parse(part.as_bytes());
        named.next().is_some_and(|(name, _)| name == "key")
    };
    if !query.split('&').any(|part| is_key(&part)) {
        return Cow::Borrowed(target);
    }
    let left: Vec<&str> = query.split('&').filter(|part| !is_key(part)).collect();
    if left.is_empty() {
        return Cow::Borrowed(path);
    }
    Cow::Owned(format!("{path}?{}", left.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llm_14_a_key_replaces_the_callers_in_every_place() {
        for (api, header, name, value) in [
            (Api::OpenAi, None, "authorization", "Bearer ours"),
            (Api::OpenAi, Some("api-key"), "api-key", "ours"),
            (Api::Anthropic, None, "x-api-key", "ours"),
            (Api::Google, None, "x-goog-api-key", "ours"),
        ] {
            let mut headers = HeaderMap::new();
            for name in KEY_HEADERS {
                headers.append(name, "theirs".parse().unwrap());
                headers.append(name, "theirs too".parse().unwrap());
            }
            headers.insert("accept", "text/plain".parse().unwrap());
            let header = header.map(HeaderName::from_static);
            put_key(&mut headers, api, header.as_ref(), "ours").unwrap();
            assert_eq!(headers.len(), 2, "{headers:?}");
            assert_eq!(headers[name], value);
            assert!(!format!("{headers:?}").contains("ours"), "{headers:?}");
            let failed = put_key(&mut headers, api, header.as_ref(), "two\nlines");
            assert!(failed.is_err() && headers.len() == 1);
        }
    }

    #[test]
    fn llm_14_googles_key_is_taken_out_of_the_query() {
        for (given, left) in [
            ("/v1/m:generateContent", "/v1/m:generateContent"),
            ("/v1/m:generateContent?key=k", "/v1/m:generateContent"),
            ("/m?alt=sse&key=k&a=key", "/m?alt=sse&a=key"),
            ("/m?monkey=1", "/m?monkey=1"),
            ("/m?%6bey=k&alt=sse", "/m?alt=sse"),
            ("/m?%6Bey", "/m"),
        ] {
            assert_eq!(without_key_in_query(given), left);
        }
    }
}
