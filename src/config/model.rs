//! Keys of `kind = "model"`: the shape of its API, its key, its models, and its streams.

use std::collections::BTreeMap;
use std::time::Duration;

use config::ValueKind;
use serde_json::json;

use super::kind::DependencyKind;
use super::secret::Secret;
use super::section::Section;
use super::token_limit::{self, TokenLimitConfig};
use super::value_type::{
    TICK, ValueType, YEAR, boolean, bytes, duration, one_of, secret_text, string,
};
use crate::model_api::Api;

/// Choice of the breaker and the pause of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelKeys {
    /// By the model that the provider is asked for.
    Model,
    /// By `breakerbox-key`, as for HTTP dependencies.
    Header,
}

/// A language model behind an HTTP API.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// Shape of the API.
    pub api: Api,
    /// Key of ours; `None` passes the caller's on.
    pub key: Option<Secret>,
    /// Header of the key, in place of the usual one of the API.
    pub key_header: Option<String>,
    /// Names of models as callers ask for them, and as the provider is asked; `*` stands for every
    /// other name.
    pub names: BTreeMap<String, String>,
    /// True if a request may be repeated until content was passed on.
    pub repeat: bool,
    /// True if client libraries may retry on their own.
    pub callers_retry: bool,
    /// Choice of the breaker and the pause of a call.
    pub keys_by: ModelKeys,
    /// Maximum size of a request's body.
    ///
    /// # Units   Bytes.
    pub max_replay_body: u64,
    /// Time of content after which a probe that is a stream counts as good.
    pub probe_stream: Duration,
    /// Limits of its tokens.
    pub token_limits: Vec<TokenLimitConfig>,
}

const APIS: &[(&str, Api)] = &[
    ("openai", Api::OpenAi),
    ("anthropic", Api::Anthropic),
    ("google", Api::Google),
];
const REPEATS: &[(&str, bool)] = &[("never", false), ("until_content", true)];
const KEYS: &[(&str, ModelKeys)] = &[("model", ModelKeys::Model), ("header", ModelKeys::Header)];

/// Keys that no other kind has.
const OWN: [&str; 8] = [
    "api",
    "key",
    "key_header",
    "model",
    "repeat",
    "callers_retry",
    "keys_by",
    "max_replay_body",
];

const API: &str = "\"openai\" or \"anthropic\" or \"google\"";
const MODELS: &str =
    "the name of a model, or a table such as { \"*\" = \"large\", fast = \"small\" }";

/// Reads the keys. Returns `None` for a dependency of another kind, which must have none of them.
/// `probe_stream`: of its breaker.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
    probe_stream: Duration,
) -> Option<ModelConfig> {
    let key = secret_text("a text of one line, in ASCII", is_key);
    let header = string("the name of a header", is_header);
    let size = bytes("\"16MB\", from 1KB to 1GB", 1_000..=1_000_000_000);
    let (repeats, keys) = (one_of(REPEATS), one_of(KEYS));
    let api = section.get("api", &one_of(APIS));
    let token_limits = token_limit::read(section, kind);
    if kind != Some(DependencyKind::Model) {
        section.get("key", &key);
        section.get("key_header", &header);
        section.get("model", &models());
        section.get("repeat", &repeats);
        section.get("callers_retry", &boolean());
        section.get("keys_by", &keys);
        section.get("max_replay_body", &size);
        reject(section, &OWN);
        return None;
    }
    if !section.has("api") {
        section.conflict("api", "kind = \"model\" needs it", API);
    }
    Some(ModelConfig {
        api: api.unwrap_or(Api::OpenAi),
        key: section.get_if_set("key", &key).map(Secret::new),
        key_header: section.get_if_set("key_header", &header),
        names: section.get_if_set("model", &models()).unwrap_or_default(),
        repeat: section.get_or("repeat", &repeats, true),
        callers_retry: section.get_or("callers_retry", &boolean(), false),
        keys_by: section.get_or("keys_by", &keys, ModelKeys::Model),
        max_replay_body: section.get_or("max_replay_body", &size, 16_000_000),
        probe_stream,
        token_limits,
    })
}

/// Reports keys that apply to another kind.
pub(super) fn reject(section: &Section<'_>, keys: &[&str]) {
    // A variable may be there without the file that has the rest of the dependency.
    let (reason, allowed) = match section.has("kind") {
        true => ("it applies to kind = \"model\"", "to leave it out"),
        false => (
            "it applies to kind = \"model\", and no kind is set",
            "to leave it out, or to set kind in a file that is read: --config DIR names its folder",
        ),
    };
    for key in keys.iter().filter(|key| section.has(key)) {
        section.conflict(key, reason, allowed);
    }
}

/// Reads `breaker.probe_stream`.
pub(super) fn read_probe_stream(
    breaker: &mut Section<'_>,
    kind: Option<DependencyKind>,
) -> Duration {
    const KEY: &str = "probe_stream";
    const USUAL: Duration = Duration::from_secs(10);
    let span = duration(TICK..=YEAR);
    if kind != Some(DependencyKind::Model) {
        breaker.get(KEY, &span);
        reject(breaker, &[KEY]);
        return USUAL;
    }
    breaker.get_or(KEY, &span, USUAL)
}

/// Returns the type of `model`: one name for every request, or a table of names.
fn models() -> ValueType<'static, BTreeMap<String, String>> {
    let parse = |value: &config::Value| match &value.kind {
        ValueKind::String(name) if is_model(name) => {
            Some(BTreeMap::from([("*".to_owned(), name.clone())]))
        }
        ValueKind::Table(table) if !table.is_empty() => {
            let names = table.iter().map(|(asked, sent)| match &sent.kind {
                ValueKind::String(sent) if is_model(sent) => Some((asked.clone(), sent.clone())),
                _ => None,
            });
            names.collect()
        }
        _ => None,
    };
    let show = |names: &BTreeMap<String, String>| {
        let names = names
            .iter()
            .map(|(asked, sent)| format!("{asked:?} = {sent:?}"));
        format!("{{ {} }}", names.collect::<Vec<_>>().join(", "))
    };
    let shown = |value: &config::Value| match &value.kind {
        ValueKind::Table(table) => {
            let sorted: BTreeMap<_, _> = table.iter().collect();
            let entries = sorted
                .into_iter()
                .map(|(asked, sent)| format!("{asked} = {}", super::masking::show(sent)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        _ => super::masking::show(value),
    };
    let schema = json!({ "anyOf": [
        { "type": "string" },
        { "type": "object", "additionalProperties": { "type": "string" } },
    ] });
    ValueType::new(MODELS, parse, show)
        .shown_by(shown)
        .schema(schema)
}

fn is_model(name: &str) -> bool {
    (1..=256).contains(&name.len()) && name.chars().all(|letter| letter.is_ascii_graphic())
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn is_header(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}
