//! Configured facts about a dependency that the views show: its address, and pages about it.

use std::collections::BTreeMap;

use crate::config::{DependencyConfig, Settings, unix_socket};

/// Address of a dependency, and pages about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DependencyProfile {
    /// Scheme, host and port. The path may hold a credential, and is left out (rule SEC-1).
    pub(super) upstream: Option<String>,
    /// Pages for the operator, by name.
    pub(super) links: BTreeMap<String, String>,
}

impl DependencyProfile {
    fn of(config: &DependencyConfig) -> Self {
        Self {
            upstream: config.url.as_deref().map(origin),
            links: config.links.clone(),
        }
    }
}

/// Returns the begin of an address that was checked when it was read: it has no user and no query.
fn origin(url: &str) -> String {
    if let Some((socket, _)) = unix_socket(url) {
        return format!("unix:{socket}");
    }
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    url[..end].to_owned()
}

/// Returns the profiles of all dependencies of these settings, by name.
pub(super) fn profiles(settings: &Settings) -> BTreeMap<String, DependencyProfile> {
    let all = settings.dependencies.iter();
    all.map(|(name, one)| (name.clone(), DependencyProfile::of(one)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn sec_1_the_path_of_an_address_is_not_shown() {
        for (url, shown) in [
            (
                "https://hooks.internal/services/T0/secret",
                "https://hooks.internal",
            ),
            ("http://[::1]:9001", "http://[::1]:9001"),
            ("unix:///run/app.sock:/secret", "unix:/run/app.sock"),
        ] {
            assert_eq!(origin(url), shown);
        }
    }
}
