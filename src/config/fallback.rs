//! The tables `fallback` of a dependency.

use std::num::NonZeroU32;
use std::time::Duration;

use super::masking::show_body;
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
        /// Maximum size of all cached answers with their heads and keys; for HTTP dependencies.
        ///
        /// # Units   Bytes.
        max_bytes: u64,
        /// Request headers that are added to the cache key, or taken out of it if they begin with
        /// `!`; for HTTP dependencies.
        headers: Vec<String>,
        /// True if requests and responses may forbid to cache or to serve; for HTTP dependencies.
        obey: bool,
    },
    /// Another dependency, with its own breaker.
    Dependency {
        /// Its name.
        name: String,
        /// True if it gets the credentials of callers; for HTTP dependencies. By default it gets
        /// them if it has the same origin: scheme, host and port.
        credentials: Option<bool>,
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
    /// The prompt is longer than the model allows.
    TooLong,
    /// A filter of the model has rejected the content.
    Filtered,
}

#[derive(Clone, Copy, PartialEq)]
enum FallbackTag {
    StaleCache,
    Dependency,
    Fixed,
}

/// Returns the kind that a word of others stands for.
fn foreign_kind(value: &config::Value) -> Option<String> {
    let config::ValueKind::String(text) = &value.kind else {
        return None;
    };
    let meant = match text.trim().to_ascii_lowercase().as_str() {
        "cache" | "cached" | "stale" | "last_good" => "stale_cache",
        "static" | "default" | "constant" | "response" | "value" | "body" | "empty" => "fixed",
        "service" | "backup" | "other" | "secondary" | "upstream" | "http" => "dependency",
        _ => return None,
    };
    Some(format!("did you mean {meant:?}?"))
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
        ("too_long", FallbackOn::TooLong),
        ("filtered", FallbackOn::Filtered),
    ];
    let given = section.get("kind", &one_of(KINDS).mistaken_by(foreign_kind));
    if !section.has("kind") {
        section.conflict("kind", "it is missing", "stale_cache, dependency or fixed");
    }
    let both = || vec![FallbackOn::Refused, FallbackOn::Failed];
    let on = section.get_or("on", &one_of(ENDS).list(), both());
    if on.is_empty() {
        section.conflict(
            "on",
            "it would never serve",
            "\"refused\", \"failed\" or both; of a model also \"too_long\" and \"filtered\"",
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
    let text = string("a text", |_| true).shown_by(show_body);
    let max_age = section.get("max_age", &span);
    let max_entries = section.get("max_entries", &entries);
    let refresh = section.get("refresh", &boolean());
    let size = bytes("\"64KB\", from 1 to 100MB", 1..=100_000_000);
    let max_body = section.get("max_body", &size);
    let room = bytes("\"64MB\", from 1KB to 100GB", 1_000..=100_000_000_000);
    let max_bytes = section.get("max_bytes", &room);
    let names = "the name of a header, in lower case; with ! before it, it is taken out of the key";
    let names = string(names, is_header).list();
    let headers = section.get("headers", &names);
    let obey = section.get("obey", &boolean());
    let credentials = section.get("credentials", &boolean());
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
                max_bytes: section.default_to("max_bytes", &room, max_bytes, 64_000_000),
                headers: section.default_to("headers", &names, headers, Vec::new()),
                obey: section.default_to("obey", &boolean(), obey, true),
            };
            warn_of_cache(section, &kind);
            (Some(kind), STALE_CACHE)
        }
        Some(FallbackTag::Dependency) => {
            if !section.has("name") {
                let needs = "kind = \"dependency\" needs it";
                section.conflict("name", needs, "the name of a dependency");
            }
            if credentials.is_none() {
                section.get_if_set("credentials", &boolean());
            }
            let kind = other.map(|name| FallbackKind::Dependency { name, credentials });
            (kind, &["name", "credentials"])
        }
        Some(FallbackTag::Fixed) => {
            let json = "application/json".to_owned();
            let kind = FallbackKind::Fixed {
                status: section.default_to("status", &code, status, 200),
                content_type: section.default_to("content_type", &media, content_type, json),
                body: section.default_to("body", &text, body, String::new()),
            };
            warn_of_fixed(section, &kind);
            (Some(kind), &["status", "content_type", "body"])
        }
    }
}

/// Keys of a stale cache.
const STALE_CACHE: &[&str] = &[
    "max_age",
    "max_entries",
    "refresh",
    "max_body",
    "max_bytes",
    "headers",
    "obey",
];

/// Warns of a body that no caller gets.
fn warn_of_fixed(section: &Section<'_>, kind: &FallbackKind) {
    let FallbackKind::Fixed { status, body, .. } = kind else {
        return;
    };
    // EDGE-7: HTTP has no body behind these.
    if matches!(status, 204 | 304) && !body.is_empty() {
        let text = format!("it is never sent: an answer with the status {status} has no body");
        section.warn("body", text);
    }
}

/// Warns of settings with which a caller may get what was meant for another (EDGE-2).
fn warn_of_cache(section: &Section<'_>, kind: &FallbackKind) {
    let FallbackKind::StaleCache {
        max_body,
        max_bytes,
        headers,
        obey,
        ..
    } = kind
    else {
        return;
    };
    for name in headers.iter().filter_map(|name| name.strip_prefix('!')) {
        if headers.iter().any(|added| added.as_str() == name) {
            // EDGE-8: the key has it, for what is added counts more.
            let text =
                format!("!{name} has no effect: {name} stands in the list too, and is in the key");
            section.warn("headers", text);
            continue;
        }
        let text = format!(
            "callers that differ only in {name} get each other's kept answers; \
             leave it out unless no answer depends on {name}"
        );
        section.warn("headers", text);
    }
    if !obey {
        let text = "answers are kept and served although they, or requests, forbid it \
                    (Cache-Control); leave it out unless all answers may be served stale";
        section.warn("obey", text.to_owned());
    }
    if *max_body > *max_bytes / 2 && (section.has("max_body") || section.has("max_bytes")) {
        let text = "answers longer than half of max_bytes are not kept; \
                    give twice max_body or more";
        section.warn("max_bytes", text.to_owned());
    }
}

fn is_header(name: &str) -> bool {
    let name = name.strip_prefix('!').unwrap_or(name);
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    !name.is_empty()
        && name
            .chars()
            .all(|letter| plain(letter) || "-_".contains(letter))
}
