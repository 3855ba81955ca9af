//! Headers of the requests to one dependency that its configuration sets or removes.
//!
//! They are applied as a request leaves, so that no other dependency gets them.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::OutboundConfig;

/// Changes to the headers of requests.
#[derive(Debug)]
pub(crate) struct OutboundHeaders {
    set: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
    /// True if the dependency is told about the caller.
    pub(super) is_forwarded: bool,
}

impl Default for OutboundHeaders {
    fn default() -> Self {
        Self::of(&OutboundConfig::default())
    }
}

impl OutboundHeaders {
    /// Reads a configuration, which was checked before.
    pub(crate) fn of(config: &OutboundConfig) -> Self {
        let pair = |(name, value): (&String, &crate::config::Secret)| {
            let mut value = HeaderValue::from_str(value.expose()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        };
        let name = |name: &String| HeaderName::try_from(name).ok();
        Self {
            set: config.headers.iter().filter_map(pair).collect(),
            remove: config.remove_headers.iter().filter_map(name).collect(),
            is_forwarded: config.forwarded,
        }
    }

    /// Changes the headers of a request to the dependency.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        if !self.is_forwarded {
            // EDGE-5: nothing that names the caller goes to a dependency that is not trusted with
            // it. `Via` names this process only, and ends loops.
            let named: Vec<HeaderName> = headers
                .keys()
                .filter(|name| names_caller(name))
                .cloned()
                .collect();
            for name in named {
                headers.remove(name);
            }
        }
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// Beginnings of the names of headers that tell a server about the caller, or about its call.
const ABOUT_CALLERS: [&str; 13] = [
    "breakerbox-",
    // Where an address is, in the words of the networks in front of a service.
    "cf-ip",
    "cloudfront-viewer-",
    "x-akamai-edgescape",
    "x-appengine-",
    "x-client-geo",
    "x-geo-",
    // Programs of the caller.
    "x-envoy-downstream-",
    "x-envoy-peer-",
    // The call as it was before a proxy changed it.
    "x-original-for",
    "x-original-host",
    "x-original-port",
    "x-original-proto",
];

/// Words for the caller, before a word for its place.
const CALLER_WORDS: [&str; 14] = [
    "caller",
    "client",
    "connecting",
    "downstream",
    "external",
    "original",
    "originating",
    "peer",
    "real",
    "remote",
    "socket",
    "source",
    "src",
    "viewer",
];

/// Words for the place of a caller.
const PLACE_WORDS: [&str; 6] = ["addr", "address", "host", "ip", "ipaddress", "port"];

/// Returns true for headers that tell a server about the caller, or about its call.
fn names_caller(name: &HeaderName) -> bool {
    let text = name.as_str();
    // EDGE-5: told by patterns, since each network has names of its own.
    if text.contains("forwarded") || ABOUT_CALLERS.iter().any(|start| text.starts_with(start)) {
        return true;
    }
    let words = || text.split(['-', '_', '.']);
    let is_place = |word: &str| PLACE_WORDS.contains(&word);
    let is_one_word = |word: &str| {
        let mut callers = CALLER_WORDS.iter();
        callers.any(|caller| word.strip_prefix(caller).is_some_and(is_place))
    };
    words().any(|word| matches!(word, "ip" | "ipv4" | "ipv6") || is_one_word(word))
        || words().any(is_place) && words().any(|word| CALLER_WORDS.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_5_e7f_headers_about_the_caller_are_told_by_patterns() {
        let is_named = |name: &'static str| names_caller(&HeaderName::from_static(name));
        for name in [
            "forwarded",
            "x-forwarded-for",
            "x-vercel-forwarded-for",
            "x-original-forwarded-for",
            "x-real-ip",
            "true-client-ip",
            "cf-connecting-ip",
            "cf-connecting-ipv6",
            "cf-pseudo-ipv4",
            "cf-ipcountry",
            "fastly-client-ip",
            "fly-client-ip",
            "x-envoy-external-address",
            "x-azure-clientip",
            "x-azure-socketip",
            "x-appengine-user-ip",
            "x-appengine-city",
            "x-nf-client-connection-ip",
            "cloudfront-viewer-address",
            "do-connecting-ip",
            "client-ip",
            "remote_addr",
            "x-remote-addr",
            "x-remote-port",
            "x-originating-ip",
            "x-original-host",
            "ali-cdn-real-ip",
            "wl-proxy-client-ip",
            "breakerbox-deadline-ms",
        ] {
            assert!(is_named(name), "{name}");
        }
        for name in [
            "accept",
            "authorization",
            "cdn-loop",
            "content-type",
            "host",
            "traceparent",
            "via",
            "x-address",
            "x-membership",
            "x-request-id",
            "x-real-name",
            "x-source",
            "x-user-address",
            "x-zip",
        ] {
            assert!(!is_named(name), "{name}");
        }
    }
}
