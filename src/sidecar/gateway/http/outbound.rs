//! Headers of the requests to one dependency that its configuration sets or removes.
//!
//! They are applied as a request leaves, so that no other dependency gets them.

use http::header::FORWARDED;
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

/// Returns true for headers that tell a server about the caller, or about its call.
fn names_caller(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == FORWARDED
        || ["x-forwarded", "breakerbox-"]
            .iter()
            .any(|start| text.starts_with(start))
        || [
            "x-real-ip",
            "x-client-ip",
            "x-cluster-client-ip",
            "true-client-ip",
            "cf-connecting-ip",
        ]
        .contains(&text)
}
