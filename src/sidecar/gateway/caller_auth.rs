//! Credentials of callers: bearer tokens, checked before a dependency is called.
//!
//! A dependency never sees a token that was checked here, unless its configuration says so. Nothing
//! here counts for a breaker: a refused caller is no outcome.

mod challenge;
mod identity;
mod jwt;
mod key_cache;
mod metadata;
mod ring_provider;

use std::collections::HashMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Response};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::http::body::ReplyBody;
use crate::config::{AuthChoice, CallerAuth, DependencyConfig, KeySource};
use challenge::AuthRefusal;
pub(super) use identity::CallerIdentity;
use jwt::TokenVerifier;
use key_cache::KeyCache;
#[cfg(feature = "cli")]
pub(crate) use key_cache::check_file as check_key_file;
pub(super) use metadata::WELL_KNOWN;

/// The checks of all dependencies, by name.
#[derive(Default)]
pub(super) struct AuthTable {
    entries: HashMap<Arc<str>, AuthEntry>,
    /// The check of those without a choice of their own.
    every: Option<Arc<CallerCheck>>,
}

#[derive(Clone)]
struct AuthEntry {
    choice: EntryChoice,
    /// True if the dependency sees the header `authorization`.
    passes_token: bool,
}

#[derive(Clone)]
enum EntryChoice {
    Inherited,
    Off,
    Own(Arc<CallerCheck>),
}

/// A dependency that has no check any more.
#[derive(Debug)]
pub(super) struct RemovedDependency;

/// The check of one request.
pub(super) struct PendingCheck {
    check: Arc<CallerCheck>,
    passes_token: bool,
}

impl AuthTable {
    /// Returns a table with another check for those without a choice of their own.
    pub(super) fn with_default(&self, auth: Option<&CallerAuth>) -> Self {
        Self {
            entries: self.entries.clone(),
            every: auth.map(|auth| self.check_for(auth)),
        }
    }

    /// Returns a table with the choice of one dependency.
    pub(super) fn with(&self, name: &str, config: &DependencyConfig) -> Self {
        let choice = match &config.auth {
            AuthChoice::Inherited => EntryChoice::Inherited,
            AuthChoice::Off => EntryChoice::Off,
            AuthChoice::Own(own) => EntryChoice::Own(self.check_for(own)),
        };
        let passes_token = config
            .forward_headers
            .iter()
            .any(|name| AUTHORIZATION == name.as_str());
        let mut entries = self.entries.clone();
        let entry = AuthEntry {
            choice,
            passes_token,
        };
        entries.insert(Arc::from(name), entry);
        Self {
            entries,
            every: self.every.clone(),
        }
    }

    /// Returns a table without a dependency.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut entries = self.entries.clone();
        entries.remove(name);
        Self {
            entries,
            every: self.every.clone(),
        }
    }

    /// Returns the check for requests to a dependency; `None` if its callers present nothing.
    /// `name`: `None` for the gateway's own pages.
    pub(super) fn of(&self, name: Option<&str>) -> Option<PendingCheck> {
        self.by(name.and_then(|name| self.entries.get(name)))
    }

    /// The same for a dependency to which a route was found.
    ///
    /// # Errors  It was removed meanwhile, and its check with it.
    pub(super) fn of_route(&self, name: &str) -> Result<Option<PendingCheck>, RemovedDependency> {
        let entry = self.entries.get(name).ok_or(RemovedDependency)?;
        Ok(self.by(Some(entry)))
    }

    fn by(&self, entry: Option<&AuthEntry>) -> Option<PendingCheck> {
        let passes_token = entry.is_some_and(|entry| entry.passes_token);
        let check = match entry.map(|entry| &entry.choice) {
            None | Some(EntryChoice::Inherited) => self.every.clone()?,
            Some(EntryChoice::Off) => return None,
            Some(EntryChoice::Own(own)) => Arc::clone(own),
        };
        Some(PendingCheck {
            check,
            passes_token,
        })
    }

    /// Returns the check with this configuration, with the keys that it knows already.
    fn check_for(&self, auth: &CallerAuth) -> Arc<CallerCheck> {
        let own = self
            .entries
            .values()
            .filter_map(|entry| match &entry.choice {
                EntryChoice::Own(check) => Some(check),
                _ => None,
            });
        let mut all = own.chain(&self.every);
        let same = all.find(|check| check.config == *auth);
        same.map_or_else(|| Arc::new(CallerCheck::new(auth)), Arc::clone)
    }
}

impl PendingCheck {
    /// Checks a request's credentials, and notes their holder in it. `path`: of the resource, such as `/kg/mcp`.
    ///
    /// # Errors  The response to a caller without valid credentials.
    pub(super) async fn admit(
        &self,
        name: Option<&str>,
        path: &str,
        head: &mut Parts,
    ) -> Result<(), Response<ReplyBody>> {
        match self.check.check(&head.headers).await {
            Ok(caller) => drop(head.extensions.insert(caller)),
            Err(refusal) => {
                let link = self.check.metadata_address(head, path);
                return Err(refusal.into_response(name, link.as_deref(), self.check.scopes()));
            }
        }
        if !self.passes_token {
            // MCP-6: what was presented to the gateway goes no further.
            head.headers.remove(AUTHORIZATION);
        }
        Ok(())
    }

    /// Returns the metadata document of a resource; `None` if no authorization server is known.
    pub(super) fn metadata(&self, head: &Parts, path: &str) -> Option<Response<ReplyBody>> {
        metadata::document(&self.check.config, head, path)
    }
}

/// Checks credentials by one configuration.
struct CallerCheck {
    config: CallerAuth,
    /// Digests of the static tokens.
    tokens: Vec<[u8; 32]>,
    verifier: Option<TokenVerifier>,
}

impl CallerCheck {
    fn new(config: &CallerAuth) -> Self {
        let verifier = config.jwt.as_ref().map(|rules| {
            let keys = match &rules.keys {
                KeySource::Url(url) => KeyCache::at(url),
                KeySource::File(path) => KeyCache::of_file(path),
            };
            TokenVerifier::new(rules, keys)
        });
        let tokens = config.tokens.iter().map(|token| digest(token.expose()));
        Self {
            tokens: tokens.collect(),
            verifier,
            config: config.clone(),
        }
    }

    async fn check(&self, headers: &HeaderMap) -> Result<CallerIdentity, AuthRefusal> {
        let token = bearer(headers)?;
        let given = digest(token);
        // All are compared, and each in constant time: the time tells nothing of a token.
        let tokens = self.tokens.iter();
        let is_known = tokens.fold(Choice::from(0), |found, known| found | known.ct_eq(&given));
        if bool::from(is_known) {
            return Ok(CallerIdentity::of_digest(given));
        }
        match &self.verifier {
            Some(verifier) => {
                let subject = verifier.verify(token).await?;
                let own = || CallerIdentity::of_digest(given);
                Ok(subject.unwrap_or_else(own))
            }
            None => Err(AuthRefusal::Invalid("the token is not known")),
        }
    }

    fn scopes(&self) -> &[String] {
        self.config.jwt.as_ref().map_or(&[], |jwt| &jwt.scopes)
    }

    fn metadata_address(&self, head: &Parts, path: &str) -> Option<String> {
        self.config.jwt.as_ref()?;
        metadata::address(&self.config, head, path)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Returns the bearer token of a request (RFC 6750, section 2.1). One in the query is not looked
/// for: addresses are logged on the way.
fn bearer(headers: &HeaderMap) -> Result<&str, AuthRefusal> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let Some(line) = lines.next() else {
        return Err(AuthRefusal::Missing);
    };
    if lines.next().is_some() {
        return Err(AuthRefusal::Invalid(
            "there is more than one authorization header",
        ));
    }
    let line = line.to_str().unwrap_or_default();
    let (scheme, token) = line.split_once(' ').unwrap_or((line, ""));
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(AuthRefusal::Missing);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn mcp_6_one_bearer_token_is_read() {
        let read = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(AUTHORIZATION, HeaderValue::from_static(line));
            }
            bearer(&headers).map(str::to_owned).ok()
        };
        assert_eq!(read(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["bearer  abc "]).as_deref(), Some("abc"));
        for lines in [
            &[][..],
            &["Basic abc"],
            &["Bearer"],
            &["Bearer "],
            &["Bearerabc"],
            &["Bearer abc", "Bearer abc"],
        ] {
            assert_eq!(read(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn mcp_6_a_removed_dependency_is_never_without_its_check() {
        let open = DependencyConfig {
            auth: AuthChoice::Off,
            ..DependencyConfig::default()
        };
        let table = AuthTable::default().with("web", &open);
        assert!(matches!(table.of_route("web"), Ok(None)), "it needs none");
        let table = table.without("web");
        assert!(table.of_route("web").is_err(), "a route of before finds it");
        assert!(table.of(Some("web")).is_none());
    }
}
