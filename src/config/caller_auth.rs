//! Credentials that callers of the gateway present: static tokens, and tokens that an authorization
//! server has signed.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::secret::Secret;
use super::section::Section;
use super::url::is_http_url;
use super::value_type::{ValueType, one_of, path, secret_text, string};

/// Credentials that callers have to present; any one of them is enough.
///
/// # Source  Rule MCP-6 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CallerAuth {
    /// Static bearer tokens.
    pub tokens: Vec<Secret>,
    /// Signed bearer tokens.
    pub jwt: Option<JwtRules>,
    /// Base address of the gateway as callers see it, for the metadata that leads them to the
    /// authorization server. Without it, the address that the request names.
    pub public_url: Option<String>,
}

/// Choice of one dependency.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AuthChoice {
    /// That of `gateway.auth`.
    #[default]
    Inherited,
    /// Its callers present nothing.
    Off,
    /// Credentials of its own.
    Own(Box<CallerAuth>),
}

impl AuthChoice {
    /// Returns true if callers present nothing. `has_default`: there is a `gateway.auth`.
    pub(super) fn is_open(&self, has_default: bool) -> bool {
        match self {
            Self::Inherited => !has_default,
            Self::Off => true,
            Self::Own(_) => false,
        }
    }
}

/// Rules for signed tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwtRules {
    /// Issuers, exactly as in the claim `iss`; a token is from one of them.
    pub issuers: Vec<String>,
    /// Names of this service; a token's claim `aud` has to contain one of them.
    pub audience: Vec<String>,
    /// Location of the issuer's public keys.
    pub keys: KeySource,
    /// Scopes that a token needs, all of them.
    pub scopes: Vec<String>,
}

/// Location of a set of public keys (JWKS, RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySource {
    /// An address.
    Url(String),
    /// A file, read again when a key is not known.
    File(PathBuf),
}

/// Reads the choice of one dependency.
pub(super) fn read_choice(section: &mut Section<'_>) -> AuthChoice {
    const WORDS: &[(&str, AuthChoice)] = &[
        ("inherited", AuthChoice::Inherited),
        ("off", AuthChoice::Off),
    ];
    let words = one_of(WORDS).or_table("{ tokens = [\"…\"] }");
    let (word, table) = section.plain_or_table("auth", &words);
    let is_table = table.present;
    match read(table) {
        Some(own) => AuthChoice::Own(Box::new(own)),
        // The table has problems, which are reported.
        None if is_table => AuthChoice::Inherited,
        None => section.default_to("auth", &words, word, AuthChoice::Inherited),
    }
}

/// Reads `auth`. Returns `None` if it is off, or is not given.
pub(super) fn read(mut section: Section<'_>) -> Option<CallerAuth> {
    let token = secret_text(
        "a text of at least 16 characters, without spaces",
        |token| token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic()),
    );
    let base = string(
        "an address such as \"https://gateway.example\"",
        is_http_url,
    );
    let tokens = section.get_if_set("tokens", &token.list().secret());
    let public_url = section.get_if_set("public_url", &base);
    let jwt = section.section_if_given("jwt");
    let has_jwt = jwt.as_ref().is_some_and(|jwt| jwt.present);
    let jwt = jwt.and_then(read_jwt);
    let tokens: Vec<Secret> = tokens
        .unwrap_or_default()
        .into_iter()
        .map(Secret::new)
        .collect();
    if section.present && tokens.is_empty() && !has_jwt && !section.is_bad("tokens") {
        let reason = "no caller could present anything";
        section.conflict_here(reason, "tokens, a table jwt, or \"off\"");
    }
    if public_url.is_some() && !has_jwt {
        let text = "it has no effect without jwt: static tokens have no authorization server";
        section.warn("public_url", text.to_owned());
    }
    let is_given = section.present;
    section.finish();
    is_given.then_some(CallerAuth {
        tokens,
        jwt,
        public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
    })
}

fn read_jwt(mut section: Section<'_>) -> Option<JwtRules> {
    let text = || string("a text", |text| !text.trim().is_empty());
    let scope = string("a scope, without spaces", |scope| {
        !scope.is_empty()
            && scope
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte))
    });
    let address = string(
        "an address such as \"https://idp.example/jwks.json\"",
        is_http_url,
    );
    let path = path("the path of a file", |path| !path.is_empty());
    // Behind one set of keys there may be several names, such as those of two versions of an issuer.
    let names = text().list();
    let schema = one_or_several(&names);
    let issuers = section.get_if_set("issuer", &names.schema(schema));
    let audience = section.get_if_set("audience", &text().list());
    let url = section.get_if_set("jwks_url", &address);
    let file = section.get_if_set("jwks_file", &path);
    let scopes = section.get_if_set("scopes", &scope.list());
    let is_given = section.present;
    if is_given {
        // Without an audience, a token for any other service of the issuer would open this one.
        for (key, names, allowed) in [
            (
                "issuer",
                &issuers,
                "the claim iss of the tokens, such as \"https://idp.example\"",
            ),
            (
                "audience",
                &audience,
                "the claim aud of the tokens, such as \"https://gateway.example/kg/mcp\"",
            ),
        ] {
            let is_empty = names.as_ref().is_some_and(Vec::is_empty);
            if is_empty || !section.has(key) {
                section.conflict(key, "jwt needs it", allowed);
            }
        }
        match (section.has("jwks_url"), section.has("jwks_file")) {
            (true, true) => {
                let reason = "jwks_url says where the keys are already";
                section.conflict("jwks_file", reason, "one of the two");
            }
            (false, false) => {
                let allowed = "the address of the issuer's keys, or jwks_file";
                section.conflict("jwks_url", "jwt needs the keys", allowed);
            }
            _ => {}
        }
    }
    warn_of_plain(&section, url.as_deref());
    section.finish();
    let keys = match (url, file) {
        (Some(url), _) => KeySource::Url(url),
        (None, Some(file)) => KeySource::File(PathBuf::from(file)),
        (None, None) => return None,
    };
    Some(JwtRules {
        issuers: issuers?,
        audience: audience?,
        keys,
        scopes: scopes.unwrap_or_default(),
    })
}

/// Returns the schema of a list that may be one text too.
fn one_or_several(list: &ValueType<'_, Vec<String>>) -> Value {
    json!({ "anyOf": [{ "type": "string" }, list.schema] })
}

/// Warns of keys that could be replaced on the way.
fn warn_of_plain(section: &Section<'_>, url: Option<&str>) {
    let Some(rest) = url.and_then(|url| url.strip_prefix("http://")) else {
        return;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let is_here = ["127.", "localhost", "[::1]"]
        .iter()
        .any(|own| host.starts_with(own));
    if !is_here {
        let text = "keys that come without TLS can be replaced on the way";
        section.warn("jwks_url", text.to_owned());
    }
}
