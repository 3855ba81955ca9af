//! The fallbacks of a dependency, and the relations between dependencies that they make.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::time::Duration;

use super::breaker::count;
use super::dependency::DependencyConfig;
use super::section::{Section, nearest};
use super::shape::{TICK, YEAR, bytes, duration, line, truth, whole, word};

/// One way to answer without the dependency.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FallbackConfig {
    /// Where the answer comes from.
    pub kind: FallbackKind,
    /// For which ends of a call it serves (FBK-2).
    pub on: Vec<FallbackOn>,
    /// Whether it may answer a write.
    pub writes: bool,
}

/// Where a fallback's answer comes from.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FallbackKind {
    /// The last good answer to the same request.
    StaleCache {
        /// How old it may be.
        max_age: Duration,
        /// Answers that are kept at most.
        max_entries: NonZeroU32,
        /// Whether the dependency is asked again in the background once one was served.
        refresh: bool,
        /// How long an answer may be to be kept; of HTTP dependencies.
        ///
        /// # Units   Bytes.
        max_body: u64,
        /// The request headers that make two requests different; of HTTP dependencies.
        headers: Vec<String>,
    },
    /// Another dependency, with its own breaker.
    Dependency {
        /// Its name.
        name: String,
    },
    /// Always the same answer.
    Fixed {
        /// The HTTP status.
        status: u16,
        /// The media type of the body.
        content_type: String,
        /// The body.
        body: String,
    },
}

/// The ends of a call for which a fallback serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FallbackOn {
    /// The call was not executed: open breaker, full, limited, shutting down.
    Refused,
    /// It was tried and failed.
    Failed,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    StaleCache,
    Dependency,
    Fixed,
}

/// Reads one of them; `None` when it could not be understood, which is noted.
pub(super) fn read(mut section: Section<'_>) -> Option<FallbackConfig> {
    const KINDS: &[(&str, Kind)] = &[
        ("stale_cache", Kind::StaleCache),
        ("dependency", Kind::Dependency),
        ("fixed", Kind::Fixed),
    ];
    const ENDS: &[(&str, FallbackOn)] = &[
        ("refused", FallbackOn::Refused),
        ("failed", FallbackOn::Failed),
    ];
    let given = section.get("kind", &word(KINDS));
    if !section.has("kind") {
        section.conflict("kind", "it is missing", "stale_cache, dependency or fixed");
    }
    let both = || vec![FallbackOn::Refused, FallbackOn::Failed];
    let on = section.get_or("on", &word(ENDS).list(), both());
    if on.is_empty() {
        section.conflict(
            "on",
            "it would never serve",
            "\"refused\", \"failed\" or both",
        );
    }
    let writes = section.get_or("writes", &truth(), false);
    let (kind, own) = read_kind(&mut section, given);
    if given.is_some() {
        section.only("kind", &[own, &["on", "writes"]].concat());
    }
    section.finish();
    let kind = kind?;
    Some(FallbackConfig { kind, on, writes })
}

/// Asks for the keys of every kind, and gives back the chosen one with the names of its own.
fn read_kind(
    section: &mut Section<'_>,
    given: Option<Kind>,
) -> (Option<FallbackKind>, &'static [&'static str]) {
    let span = duration(TICK..=YEAR);
    let entries = count(10_000_000);
    let name = line("the name of a dependency", |name| !name.is_empty());
    let code = whole(200..=599_u16);
    let printable = |text: &str| !text.is_empty() && text.chars().all(|c| !c.is_control());
    let media = line("a media type", printable);
    let text = line("a text", |_| true);
    let max_age = section.get("max_age", &span);
    let max_entries = section.get("max_entries", &entries);
    let refresh = section.get("refresh", &truth());
    let size = bytes("\"64KB\", from 1 to 100MB", 1..=100_000_000);
    let max_body = section.get("max_body", &size);
    let names = line("the name of a header, in lower case", is_header).list();
    let headers = section.get("headers", &names);
    let other = section.get("name", &name);
    let status = section.get("status", &code);
    let content_type = section.get("content_type", &media);
    let body = section.get("body", &text);
    match given {
        None => (None, &[]),
        Some(Kind::StaleCache) => {
            let hour = Duration::from_secs(3600);
            let many = NonZeroU32::new(10_000).unwrap_or(NonZeroU32::MIN);
            let kind = FallbackKind::StaleCache {
                max_age: section.settle("max_age", &span, max_age, hour),
                max_entries: section.settle("max_entries", &entries, max_entries, many),
                refresh: section.settle("refresh", &truth(), refresh, false),
                max_body: section.settle("max_body", &size, max_body, 64_000),
                headers: section.settle("headers", &names, headers, told_apart()),
            };
            let own = &["max_age", "max_entries", "refresh", "max_body", "headers"];
            (Some(kind), own)
        }
        Some(Kind::Dependency) => {
            if !section.has("name") {
                let needs = "kind = \"dependency\" needs it";
                section.conflict("name", needs, "the name of a dependency");
            }
            let kind = other.map(|name| FallbackKind::Dependency { name });
            (kind, &["name"])
        }
        Some(Kind::Fixed) => {
            let json = "application/json".to_owned();
            let kind = FallbackKind::Fixed {
                status: section.settle("status", &code, status, 200),
                content_type: section.settle("content_type", &media, content_type, json),
                body: section.settle("body", &text, body, String::new()),
            };
            (Some(kind), &["status", "content_type", "body"])
        }
    }
}

/// The headers by which answers differ as a rule. Whose answer it is is among them: nobody is
/// given what was kept for somebody else.
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

/// Notes fallbacks that name nobody, and circles of them.
pub(super) fn check(dependencies: &BTreeMap<String, DependencyConfig>, table: &Section<'_>) {
    for (owner, config) in dependencies {
        for (index, name) in named_by(config) {
            if dependencies.contains_key(name) {
                continue;
            }
            let near = nearest(name, dependencies.keys().map(String::as_str));
            let hint = near.map_or(String::new(), |near| format!(", did you mean {near}?"));
            let names: Vec<&str> = dependencies.keys().map(String::as_str).collect();
            table.conflict(
                &format!("{owner}.fallback[{index}].name"),
                format!("there is no such dependency{hint}"),
                &format!("one of {}", names.join(", ")),
            );
        }
    }
    let mut done = BTreeSet::new();
    for start in dependencies.keys() {
        walk(dependencies, table, &mut vec![start], &mut done);
    }
}

/// Follows the fallbacks of the last name on `path`, each dependency once; a step back onto the
/// path closes a circle.
fn walk<'a>(
    dependencies: &'a BTreeMap<String, DependencyConfig>,
    table: &Section<'_>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) {
    let Some(owner) = path.last().copied() else {
        return;
    };
    let Some(config) = dependencies.get(owner) else {
        return;
    };
    if !done.insert(owner) {
        return;
    }
    for (index, next) in named_by(config) {
        if let Some(begin) = path.iter().position(|name| *name == next) {
            let circle = path[begin..].join("->");
            table.conflict(
                &format!("{owner}.fallback[{index}].name"),
                format!("a circle, {circle}->{next}"),
                "dependencies that do not fall back on each other",
            );
        } else {
            path.push(next);
            walk(dependencies, table, path, done);
            path.pop();
        }
    }
}

fn named_by(config: &DependencyConfig) -> impl Iterator<Item = (usize, &str)> {
    let fallbacks = config.fallbacks.iter().enumerate();
    fallbacks.filter_map(|(index, fallback)| match &fallback.kind {
        FallbackKind::Dependency { name } => Some((index, name.as_str())),
        _ => None,
    })
}
