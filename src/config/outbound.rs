//! Headers of the requests to an HTTP dependency: those that are set, those that are removed, and
//! those that tell it about the caller.

use std::collections::BTreeMap;

use super::credential_names::is_credential_name;
use super::kind::DependencyKind;
use super::secret::Secret;
use super::section::Section;
use super::value_type::{boolean, string};

/// Headers of the requests to one HTTP dependency.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OutboundConfig {
    /// Headers that are set in each request to this dependency, and in none to its fallbacks.
    pub headers: BTreeMap<String, Secret>,
    /// Headers of callers that are not passed on.
    pub remove_headers: Vec<String>,
    /// True if the dependency is told about the caller: `Forwarded` and the headers like it, and
    /// the time that is left.
    pub forwarded: bool,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            headers: BTreeMap::new(),
            remove_headers: Vec::new(),
            forwarded: true,
        }
    }
}

/// Headers that frame a message or belong to its connection; the gateway sets them itself.
const OURS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Keys that apply to HTTP dependencies only.
const HTTP_ONLY: [&str; 2] = ["remove_headers", "forwarded"];

/// Allowed table of headers.
const TABLE: &str = "a table of texts, such as { x-api-key = \"…\" }";

/// Reads the keys of any kind. The headers are those of an MCP server too.
pub(super) fn read(section: &mut Section<'_>, kind: Option<DependencyKind>) -> OutboundConfig {
    let name = string(
        "the name of a header that is not the connection's own",
        is_name,
    );
    let names = name.list();
    let given = section.secrets("headers", TABLE);
    let remove_headers = section.get_if_set("remove_headers", &names);
    let forwarded = section.get("forwarded", &boolean());
    let mut headers = BTreeMap::new();
    let is_http = kind.is_some_and(DependencyKind::is_http);
    for (name, value) in given {
        // Blanks and line ends around it come from files and shells; none of them can be sent.
        let value = Secret::new(value.expose().trim());
        if is_http && !is_name(&name) {
            let key = format!("headers.{name}");
            let reason = "it is no header that can be set";
            section.conflict(
                &key,
                reason,
                "the name of a header that is not the connection's own",
            );
        } else if is_http && !is_value(value.expose()) {
            let key = format!("headers.{name}");
            section.conflict(&key, "it cannot be sent", "a text of one line, in ASCII");
        }
        headers.insert(name, value);
    }
    check_case(section, &headers);
    // LLM-15: a provider learns nothing of the caller.
    let is_model = kind == Some(DependencyKind::Model);
    if is_http {
        warn(
            section,
            &headers,
            remove_headers.as_deref().unwrap_or_default(),
        );
        return OutboundConfig {
            headers,
            remove_headers: remove_headers.unwrap_or_default(),
            forwarded: section.default_to("forwarded", &boolean(), forwarded, !is_model),
        };
    }
    for key in HTTP_ONLY {
        if section.has(key) {
            let reason = "it applies to kind = \"http\" and \"model\"";
            section.conflict(key, reason, "to leave it out");
        }
    }
    OutboundConfig {
        headers,
        ..OutboundConfig::default()
    }
}

/// Reports a header that is set twice: the case of its letters makes no other one of it, so that a
/// file would not override that of the layer below.
fn check_case(section: &Section<'_>, headers: &BTreeMap<String, Secret>) {
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(other) = known.insert(name.to_ascii_lowercase(), name) {
            let reason = format!("it is the header {other} once more: case makes no difference");
            section.conflict(&format!("headers.{name}"), reason, "each header once");
        }
    }
}

/// Warns of headers that go out otherwise than they are meant.
fn warn(section: &Section<'_>, headers: &BTreeMap<String, Secret>, removed: &[String]) {
    let is_set = |name: &&String| headers.keys().any(|set| set.eq_ignore_ascii_case(name));
    for name in removed.iter().filter(is_set) {
        let text = format!("{name} goes out all the same: headers sets it in every request");
        section.warn("remove_headers", text);
    }
    warn_of_our_own(section, headers, removed);
    let is_empty = |value: &Secret| value.expose().trim().is_empty();
    let empty = headers
        .iter()
        .filter(|(name, value)| is_credential_name(&name.to_ascii_lowercase()) && is_empty(value));
    for (name, _) in empty {
        let text = "it is sent empty, in place of the caller's; remove_headers keeps that back";
        section.warn(&format!("headers.{name}"), text.to_owned());
    }
}

/// Warns of headers that the gateway or a dependency relies on.
fn warn_of_our_own(section: &Section<'_>, headers: &BTreeMap<String, Secret>, removed: &[String]) {
    const LOOP: &str = "the gateway's entry is lost, so that a request that leads back here goes round \
                        for ever";
    for name in removed {
        let text = match name.to_ascii_lowercase().as_str() {
            "via" => LOOP,
            "breakerbox-deadline-ms" => {
                "it goes out all the same, with the time that is left: forwarded = false keeps it \
                 back"
            }
            _ => continue,
        };
        section.warn("remove_headers", text.to_owned());
    }
    for name in headers.keys() {
        let text = match name.to_ascii_lowercase().as_str() {
            "via" => LOOP,
            "breakerbox-deadline-ms" => "the time that is left takes its place",
            "idempotency-key" => "the dependency takes every request for a repeat of the first",
            _ => continue,
        };
        section.warn(&format!("headers.{name}"), text.to_owned());
    }
}

/// Headers that the protocol of MCP servers sets itself.
const MCP_OWN: [&str; 9] = [
    "accept",
    "accept-encoding",
    "content-encoding",
    "content-type",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
];

/// Reads the names of callers' headers that pass to an MCP server; in lower case, sorted.
///
/// # Source  Rule MCP-6 in docs/rules.md.
pub(super) fn read_forwarded(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
    own: &BTreeMap<String, Secret>,
) -> Vec<String> {
    const KEY: &str = "forward_headers";
    let name = string(
        "the name of a header that neither the connection nor the protocol sets",
        |name| is_name(name) && !MCP_OWN.iter().any(|own| own.eq_ignore_ascii_case(name)),
    );
    let Some(names) = section.get_if_set(KEY, &name.list()) else {
        return Vec::new();
    };
    let kinds = [
        DependencyKind::McpHttp,
        DependencyKind::McpGroup,
        DependencyKind::Http,
        DependencyKind::Model,
    ];
    if kind.is_some_and(|kind| !kinds.contains(&kind)) {
        let reason = "it applies to kind = \"mcp_http\", and with auth to others over HTTP";
        section.conflict(KEY, reason, "to leave it out");
    }
    let mut names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    names.sort();
    names.dedup();
    if kind == Some(DependencyKind::McpHttp) {
        let set = names
            .iter()
            .find(|name| own.keys().any(|key| key.eq_ignore_ascii_case(name)));
        if let Some(name) = set {
            let text = format!("{name} of callers never passes: headers sets it");
            section.warn(KEY, text);
        }
    } else if names.iter().any(|name| name != "authorization") {
        let text = "it has an effect on authorization only: every other header passes anyway";
        section.warn(KEY, text.to_owned());
    }
    names
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_ours = OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
    !name.is_empty() && name.bytes().all(plain) && !is_ours
}

fn is_value(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
}
