//! The tables `fallback` of a dependency.

use std::num::NonZeroU32;
use std::time::Duration;

use super::section::Section;
use super::value_type::{TICK, YEAR, boolean, bytes, count, duration, integer, one_of, string};

/// A fallback of a dependency.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FallbackConfig {
    /// Source of the answer.
    pub kind: FallbackKind,
    /// Results of a call for which it is used (FBK-2).
    pub on: Vec<FallbackOn>,
    /// True if it may answer writes.
    pub writes: bool,
}

/// Source of a fallback's answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FallbackKind {
    /// The last good answer to an equal request.
    StaleCache {
        /// Maximum age of an answer.
        max_age: Duration,
        /// Maximum number of cached answers.
        max_entries: NonZeroU32,
        /// True to refresh an answer in the background after it was served.
        refresh: bool,
        /// Maximum size of a cached answer; for HTTP dependencies.
        ///
        /// # Units   Bytes.
        max_body: u64,
        /// Request headers in the cache key; for HTTP dependencies.
        headers: Vec<String>,
    },
    /// Another dependency, with its own breaker.
    Dependency {
        /// Its name.
        name: String,
    },
    /// A fixed answer.
    Fixed {
        /// The HTTP status.
        status: u16,
        /// The media type of the body.
        content_type: String,
        /// The body.
        body: String,
    },
}

/// Results of a call for which a fallback is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FallbackOn {
    /// The call was not executed: open breaker, bulkhead full, rate limited, shutting down.
    Refused,
    /// The call was executed and failed.
    Failed,
}

#[derive(Clone, Copy, PartialEq)]
enum FallbackTag {
    StaleCache,
    Dependency,
    Fixed,
}

/// Reads one fallback. Returns `None`, and reports a problem, if it is invalid.
pub(super) fn read(mut section: Section<'_>) -> Option<FallbackConfig> {
    const KINDS: &[(&str, FallbackTag)] = &[
        ("stale_cache", FallbackTag::StaleCache),
        ("dependency", FallbackTag::Dependency),
        ("fixed", FallbackTag::Fixed),
    ];
    const ENDS: &[(&str, FallbackOn)] = &[
        ("refused", FallbackOn::Refused),
        ("failed", FallbackOn::Failed),
    ];
    let given = section.get("kind", &one_of(KINDS));
    if !section.has("kind") {
        section.conflict("kind", "it is missing", "stale_cache, dependency or fixed");
    }
    let both = || vec![FallbackOn::Refused, FallbackOn::Failed];
    let on = section.get_or("on", &one_of(ENDS).list(), both());
    if on.is_empty() {
        section.conflict(
            "on",
            "it would never serve",
            "\"refused\", \"failed\" or both",
        );
    }
    let writes = section.get_or("writes", &boolean(), false);
    let (kind, own) = read_kind(&mut section, given);
    if given.is_some() {
        section.reject_others("kind", &[own, &["on", "writes"]].concat());
    }
    section.finish();
    let kind = kind?;
    Some(FallbackConfig { kind, on, writes })
}

/// Reads the keys of every kind. Returns the chosen kind with the names of its keys.
fn read_kind(
    section: &mut Section<'_>,
    given: Option<FallbackTag>,
) -> (Option<FallbackKind>, &'static [&'static str]) {
    let span = duration(TICK..=YEAR);
    let entries = count(10_000_000);
    let name = string("the name of a dependency", |name| !name.is_empty());
    let code = integer(200..=599_u16);
    let printable = |text: &str| !text.is_empty() && text.chars().all(|c| !c.is_control());
    let media = string("a media type", printable);
    let text = string("a text", |_| true);
    let max_age = section.get("max_age", &span);
    let max_entries = section.get("max_entries", &entries);
    let refresh = section.get("refresh", &boolean());
    let size = bytes("\"64KB\", from 1 to 100MB", 1..=100_000_000);
    let max_body = section.get("max_body", &size);
    let names = string("the name of a header, in lower case", is_header).list();
    let headers = section.get("headers", &names);
    let other = section.get("name", &name);
    let status = section.get("status", &code);
    let content_type = section.get("content_type", &media);
    let body = section.get("body", &text);
    match given {
        None => (None, &[]),
        Some(FallbackTag::StaleCache) => {
            let hour = Duration::from_secs(3600);
            let many = NonZeroU32::new(10_000).unwrap_or(NonZeroU32::MIN);
            let kind = FallbackKind::StaleCache {
                max_age: section.default_to("max_age", &span, max_age, hour),
                max_entries: section.default_to("max_entries", &entries, max_entries, many),
                refresh: section.default_to("refresh", &boolean(), refresh, false),
                max_body: section.default_to("max_body", &size, max_body, 64_000),
                headers: section.default_to("headers", &names, headers, told_apart()),
            };
            let own = &["max_age", "max_entries", "refresh", "max_body", "headers"];
            (Some(kind), own)
        }
        Some(FallbackTag::Dependency) => {
            if !section.has("name") {
                let needs = "kind = \"dependency\" needs it";
                section.conflict("name", needs, "the name of a dependency");
            }
            let kind = other.map(|name| FallbackKind::Dependency { name });
            (kind, &["name"])
        }
        Some(FallbackTag::Fixed) => {
            let json = "application/json".to_owned();
            let kind = FallbackKind::Fixed {
                status: section.default_to("status", &code, status, 200),
                content_type: section.default_to("content_type", &media, content_type, json),
                body: section.default_to("body", &text, body, String::new()),
            };
            (Some(kind), &["status", "content_type", "body"])
        }
    }
}

/// Request headers in the default cache key. They include credentials, so a response cached for one
/// caller is never served to another.
fn told_apart() -> Vec<String> {
    let names = [
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "cookie",
    ];
    names.map(str::to_owned).to_vec()
}

fn is_header(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    !name.is_empty()
        && name
            .chars()
            .all(|letter| plain(letter) || "-_".contains(letter))
}
