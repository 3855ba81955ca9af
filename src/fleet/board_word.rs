//! The words that replicas write on the board and say to each other, with their versions.
//!
//! Words hold spans, never moments. A word of another version, or of a kind that this one does not
//! know, is left alone. Secrets, keys and requests are in none.

use std::collections::BTreeMap;
use std::time::Duration;

use breakerbox_policy::fleet::{BoardTime, RateNumber, RateRequest, ReplicaId, Revision, UnitSpan};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of the words.
const VERSION: u32 = 1;
/// Longest word that is read, in bytes; a heartbeat has one entry for each dependency.
const MAX_WORD: usize = 1024 * 1024;
/// Longest span that another replica's word is believed.
const MAX_SPAN: Duration = Duration::from_secs(3600);
/// Longest text of another replica that is kept, in letters.
const MAX_TEXT: usize = 200;

/// A word of a version, or of a kind, that this replica does not know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("version {version}, kind {kind}")]
pub(crate) struct UnknownWord {
    version: String,
    kind: String,
}

/// A word on the board, in the value of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum BoardWord {
    /// A replica has joined. Its time on the board is that of the latest join.
    Join { name: String },
    /// A replica's own outcomes have opened its breaker.
    Evidence {
        name: String,
        wait_ms: u64,
        /// The rule that opened it, in words.
        rule: String,
    },
    /// A replica holds the lease to probe.
    Lease { by: String, name: String },
    /// The holder's probe succeeded.
    Recovered { by: String, name: String },
    /// The holder's probe failed.
    Failed {
        by: String,
        name: String,
        wait_ms: u64,
        failed_periods: u32,
    },
    /// The dependency asked for less traffic.
    Pause(FleetPause),
    /// An operator's override for the fleet.
    Order(FleetOrder),
    /// The number of a shared rate.
    Rate(FleetRate),
}

/// The number of a shared rate, and the replica that moved it on.
///
/// It is the one word with moments in it: those of the board's own clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FleetRate {
    pub(crate) by: String,
    pub(crate) name: String,
    /// Time at which all units that were given out have come back.
    pub(crate) full_at_ns: u64,
    /// The first and the last of the units that were given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) free_ns: Option<[u64; 2]>,
}

impl FleetRate {
    pub(crate) fn of(request: &RateRequest, (by, name): (String, String)) -> Self {
        Self {
            by,
            name,
            full_at_ns: request.full_at.0,
            free_ns: request.free.map(|free| [free.first.0, free.last.0]),
        }
    }

    pub(crate) fn number(&self, revision: Revision) -> RateNumber {
        let free = self.free_ns.filter(|[first, last]| first <= last);
        RateNumber {
            full_at: BoardTime(self.full_at_ns),
            free: free.map(|[first, last]| UnitSpan {
                first: BoardTime(first),
                last: BoardTime(last),
            }),
            revision,
        }
    }
}

/// The pause that a dependency asked a replica for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FleetPause {
    pub(crate) by: String,
    pub(crate) name: String,
    pub(crate) wait_ms: u64,
    /// True for a used-up quota.
    pub(crate) quota: bool,
    /// A keyed hash of the credentials that the dependency got; empty for none.
    #[serde(default)]
    pub(crate) account: String,
}

/// Kinds of overrides that stand on the board. FLT-17: another one is an unknown word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderCommand {
    Open,
    Disable,
    Shadow,
}

impl OrderCommand {
    /// Returns the kind of an operator's command, if it is an override.
    pub(crate) fn of(command: &str) -> Option<Self> {
        let all = [Self::Open, Self::Disable, Self::Shadow];
        all.into_iter().find(|one| one.as_str() == command)
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Disable => "disable",
            Self::Shadow => "shadow",
        }
    }
}

/// An operator's override that stands on the board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FleetOrder {
    pub(crate) command: OrderCommand,
    pub(crate) reason: String,
    /// The operator.
    pub(crate) by: String,
    /// Span for which it holds; `None` until it is taken off.
    pub(crate) for_ms: Option<u64>,
}

/// A message that is stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum ReplicaMessage {
    /// A heartbeat.
    Here {
        id: String,
        name: String,
        every_ms: u64,
        /// Number of the heartbeat.
        number: u64,
        /// Fingerprint of the settings on which replicas should agree.
        fingerprint: String,
        dependencies: BTreeMap<String, ReportedState>,
    },
    /// The replica ends.
    Bye { id: String },
    /// An operator's command for the replicas that are connected: `reset` or `check`.
    Do {
        dependency: String,
        command: String,
        reason: String,
        by: String,
        /// The replica that has carried it out already.
        from: String,
    },
}

/// The state of a dependency in a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReportedState {
    /// `closed`, `open` or `half_open`.
    pub(crate) state: String,
    /// True if it was called since the last heartbeat.
    #[serde(default)]
    pub(crate) calls: bool,
    /// True while the replica has evidence.
    #[serde(default)]
    pub(crate) evidence: bool,
}

#[derive(Serialize)]
struct VersionedWord<'a, W> {
    v: u32,
    #[serde(flatten)]
    word: &'a W,
}

/// Writes a word with its version.
pub(crate) fn write<W: Serialize>(word: &W) -> Bytes {
    let envelope = VersionedWord { v: VERSION, word };
    // A map with texts as keys has always a form in JSON.
    serde_json::to_vec(&envelope).unwrap_or_default().into()
}

/// Reads a word.
///
/// # Errors  [`UnknownWord`]: leave it alone.
pub(crate) fn read<W: DeserializeOwned>(bytes: &[u8]) -> Result<W, UnknownWord> {
    let unknown = |version: &str, kind: &str| UnknownWord {
        version: short(version),
        kind: short(kind),
    };
    if bytes.len() > MAX_WORD {
        return Err(unknown("of any", "too long"));
    }
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|_| unknown("of any", "no JSON"))?;
    let version = value["v"].to_string();
    let kind = value["kind"].as_str().unwrap_or("none").to_owned();
    // FLT-17: a word of another version may mean anything.
    if version != VERSION.to_string() {
        return Err(unknown(&version, &kind));
    }
    serde_json::from_value(value).map_err(|_| unknown(&version, &kind))
}

/// Returns a span of another replica, as far as it is believed.
pub(crate) fn span(millis: u64) -> Duration {
    Duration::from_millis(millis).min(MAX_SPAN)
}

/// Returns a span for the board.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a text of another replica, cut off and without control characters.
pub(crate) fn short(text: &str) -> String {
    let letters = text.chars().filter(|letter| !letter.is_control());
    letters.take(MAX_TEXT).collect()
}

/// Returns the id of a replica on the board.
pub(crate) fn id_text(id: ReplicaId) -> String {
    format!("{:016x}", id.0)
}

/// Reads the id of a replica.
pub(crate) fn id_of(text: &str) -> Option<ReplicaId> {
    u64::from_str_radix(text, 16).ok().map(ReplicaId)
}

/// The name of a limit that all replicas have together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SharedLimitName {
    pub(crate) dependency: String,
    /// Empty for the rate limit; of a token limit, the tokens and the interval.
    pub(crate) limit: String,
}

/// A key of the board.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum BoardKey {
    /// The latest join.
    Join,
    /// Evidence of a replica on a dependency.
    Evidence(String, ReplicaId),
    /// The lease to probe a dependency, or its verdict.
    Lease(String),
    /// The pause that a dependency asked for.
    Pause(String),
    /// An operator's override of a dependency.
    Order(String),
    /// The number of a limit that all replicas have together.
    Rate(SharedLimitName),
}

impl BoardKey {
    /// Returns the key's text: a dependency's name is one part of it, also with dots in it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Join => "join".to_owned(),
            Self::Evidence(name, id) => format!("evidence.{}.{}", encoded(name), id_text(*id)),
            Self::Lease(name) => format!("lease.{}", encoded(name)),
            Self::Pause(name) => format!("pause.{}", encoded(name)),
            Self::Order(name) => format!("order.{}", encoded(name)),
            Self::Rate(SharedLimitName { dependency, limit }) => match &**limit {
                "" => format!("rate.{}", encoded(dependency)),
                limit => format!("rate.{}.{}", encoded(dependency), encoded(limit)),
            },
        }
    }

    /// Reads a key; `None` for one that this replica does not know.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (kind, name, id) = (parts.next()?, parts.next(), parts.next());
        if parts.next().is_some() {
            return None;
        }
        let key = match (kind, name, id) {
            ("join", None, None) => Some(Self::Join),
            ("evidence", Some(name), Some(id)) => Some(Self::Evidence(decoded(name)?, id_of(id)?)),
            ("lease", Some(name), None) => Some(Self::Lease(decoded(name)?)),
            ("pause", Some(name), None) => Some(Self::Pause(decoded(name)?)),
            ("order", Some(name), None) => Some(Self::Order(decoded(name)?)),
            ("rate", Some(name), None) => Some(Self::Rate(SharedLimitName {
                dependency: decoded(name)?,
                limit: String::new(),
            })),
            ("rate", Some(name), Some(limit)) => Some(Self::Rate(SharedLimitName {
                dependency: decoded(name)?,
                limit: decoded(limit)?,
            })),
            _ => None,
        };
        // A word under another spelling could not be taken off by the key that is written.
        key.filter(|key| key.text() == text)
    }
}

/// Encodes a name for a key: letters, digits, `_` and `-` stay, any other byte is `=` and two
/// hexadecimal digits.
fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => text.push(char::from(byte)),
            other => text.push_str(&format!("={other:02x}")),
        }
    }
    text
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'=' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flt_17_words_come_back_as_they_were_written() {
        let word = BoardWord::Failed {
            by: id_text(ReplicaId(7)),
            name: "eu-1".to_owned(),
            wait_ms: 1500,
            failed_periods: 3,
        };
        let text = write(&word);
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            r#"{"v":1,"kind":"failed","by":"0000000000000007","name":"eu-1","wait_ms":1500,"failed_periods":3}"#
        );
        assert_eq!(read(&text), Ok(word));
        let order = BoardWord::Order(FleetOrder {
            command: OrderCommand::Open,
            reason: "a release".to_owned(),
            by: "ann".to_owned(),
            for_ms: None,
        });
        assert_eq!(read(&write(&order)), Ok(order));
        let request = RateRequest {
            expected: Revision(1),
            full_at: BoardTime(1_790_000_000_000_000_001),
            free: None,
        };
        let rate = FleetRate::of(&request, (id_text(ReplicaId(7)), "eu-1".to_owned()));
        let word = BoardWord::Rate(rate.clone());
        let text = write(&word);
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            r#"{"v":1,"kind":"rate","by":"0000000000000007","name":"eu-1","full_at_ns":1790000000000000001}"#
        );
        assert_eq!(read(&text), Ok(word));
        assert_eq!(rate.number(Revision(2)).full_at, request.full_at);
    }

    #[test]
    fn flt_17_other_versions_and_kinds_are_told_apart_and_nothing_breaks() {
        for (text, told) in [
            (
                r#"{"v":2,"kind":"lease","by":"7","name":"a"}"#,
                "version 2, kind lease",
            ),
            (
                r#"{"v":1,"kind":"order","command":"drain","reason":"","by":"ann","for_ms":null}"#,
                "version 1, kind order",
            ),
            (r#"{"v":1,"kind":"gossip"}"#, "version 1, kind gossip"),
            (r#"{"v":1,"kind":"lease"}"#, "version 1, kind lease"),
            (r#"{"kind":"lease"}"#, "version null, kind lease"),
            ("nonsense", "version of any, kind no JSON"),
            ("", "version of any, kind no JSON"),
        ] {
            let error = read::<BoardWord>(text.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), told, "{text}");
        }
    }

    #[test]
    fn flt_17_any_name_of_a_dependency_is_one_part_of_a_key() {
        for name in ["web_search", "a.b", "a b>*", "größe", "a=b", "*"] {
            for key in [
                BoardKey::Lease(name.to_owned()),
                BoardKey::Evidence(name.to_owned(), ReplicaId(u64::MAX)),
                BoardKey::Order(name.to_owned()),
                BoardKey::Rate(SharedLimitName {
                    dependency: name.to_owned(),
                    limit: String::new(),
                }),
                BoardKey::Rate(SharedLimitName {
                    dependency: name.to_owned(),
                    limit: "total.60000".to_owned(),
                }),
            ] {
                let text = key.text();
                let plain =
                    |letter: char| letter.is_ascii_alphanumeric() || "_-=.".contains(letter);
                assert!(text.chars().all(plain), "{text}");
                assert_eq!(BoardKey::of(&text), Some(key));
            }
        }
        for other in [
            "",
            "lease",
            "lease.",
            "lease.a.b",
            "rate.a.",
            "rate.a.b.c",
            "gossip.a",
            "lease.=zz",
            "join.a",
            // Other spellings of keys.
            "lease.=61",
            "lease.=+f",
            "lease.=C3=B6",
            "evidence.a.7",
            "evidence.a.+000000000000007",
        ] {
            assert_eq!(BoardKey::of(other), None, "{other}");
        }
    }

    #[test]
    fn flt_16_texts_and_spans_of_others_are_bounded() {
        assert_eq!(short("a\u{1b}[31m\nb"), "a[31mb");
        assert_eq!(short(&"x".repeat(1000)).len(), MAX_TEXT);
        assert_eq!(span(u64::MAX), MAX_SPAN);
    }
}
