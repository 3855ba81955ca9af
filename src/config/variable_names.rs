//! Names of variables and flags: bounds before they become keys, and unknown ones of ours.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::known_keys::{KnownKeys, folded, last_of};
use super::masking::MASK;
use super::problem::Warning;
use super::section::Section;
use super::source::{LayerRank, ValueOrigin};
use super::unknown_key::KeyAdvice;
use super::variable_spelling::{NAMED, OWNERS};
use super::{foreign_names, misplaced_value};

/// Begin of the names of all our variables.
pub(super) const OURS: &str = "BREAKERBOX";
/// Prefix of variables that set a key.
pub(super) const PREFIX: &str = "BREAKERBOX__";
/// Beginning of names that were written with an underscore too many.
const SPLIT: &str = "BREAKER_BOX_";
/// Variable that names the environment.
pub(super) const ENVIRONMENT: &str = "BREAKERBOX_ENV";
/// Names that a variable for the folder of the configuration might have, without their beginning.
const FOLDER: [&str; 6] = [
    "config",
    "configdir",
    "configfile",
    "configpath",
    "configfolder",
    "conf",
];
/// Names that a variable for the log might have, without their beginning.
const LOG: [&str; 3] = ["log", "loglevel", "rustlog"];
const LOG_ADVICE: &str = "the log lines are chosen by RUST_LOG, such as RUST_LOG=debug";
/// Maximum length of a key, in bytes.
const MAX_KEY: usize = 1024;
/// Maximum number of parts of a key: each becomes a table within another.
const MAX_PARTS: usize = 16;

/// Returns the problem of a key that is too large to be read, and what is allowed.
///
/// An array gets the length of its index, and each part of a key is a table within another one.
pub(super) fn too_large(key: &str) -> Option<(&'static str, &'static str)> {
    // EDGE-7: bounded before memory is taken by it.
    if key.len() > MAX_KEY || key.split('.').count() > MAX_PARTS {
        return Some(("its name is too long", "a key of the configuration"));
    }
    let mut indices = key.split('[').skip(1).map(|rest| rest.split_once(']'));
    let is_index = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits && !text.is_empty() && text.len() <= 3
    };
    let sane = |index: Option<(&str, &str)>| index.is_some_and(|(index, _)| is_index(index));
    let all_sane = indices.all(sane) && key.matches('[').count() == key.matches(']').count();
    (!all_sane).then_some(("its index is invalid", "an index from 0 to 999"))
}

/// Warns of each variable that looks like one of ours and sets nothing. `dependencies`: of the files.
pub(super) fn unknown(
    variables: &[(String, String)],
    place: impl Fn(&str) -> String,
    dependencies: &[&str],
) -> Vec<Warning> {
    let sorted: BTreeMap<&str, &str> = variables
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let ours = sorted.into_iter().filter(|(name, value)| {
        let begins = name.get(..OURS.len());
        let looks_ours = begins.is_some_and(|begin| begin.eq_ignore_ascii_case(OURS));
        // Their second word is the first part of a key, so they are hardly another program's.
        let is_split = name.len() > SPLIT.len() && name.starts_with(SPLIT);
        (looks_ours || is_split)
            && !name.starts_with(PREFIX)
            && *name != ENVIRONMENT
            && !is_of_a_cluster(name, value)
    });
    ours.map(|(name, _)| Warning {
        key: String::new(),
        text: format!(
            "unknown variable, it sets nothing{}",
            advice(name, dependencies)
        ),
        origin: place(name),
    })
    .collect()
}

/// Returns the name that was probably meant.
fn advice(name: &str, dependencies: &[&str]) -> String {
    let is_split = name.starts_with(SPLIT);
    let begin = if is_split { SPLIT.len() } else { OURS.len() };
    let rest = name[begin..].to_ascii_lowercase();
    let words = words_of(&rest);
    let of_key = |key: &str| format!(", did you mean {}?", variable_of(key));
    match folded(&rest).as_str() {
        given if FOLDER.contains(&given) => {
            ", the folder of the configuration is given by --config DIR".to_owned()
        }
        given if LOG.contains(&given) => format!(", {LOG_ADVICE}"),
        "token" => of_key("admin.token"),
        "bind" | "listen" | "address" | "port" => of_key("gateway.bind"),
        "env" | "environment" => format!(", did you mean {ENVIRONMENT}?"),
        _ => match meant_key(&words, dependencies) {
            Some(key) => of_key(&key),
            None => format!(", allowed: {ENVIRONMENT}, or {PREFIX}SECTION__KEY"),
        },
    }
}

fn words_of(name: &str) -> Vec<&str> {
    let words = name.split(['_', '.']);
    words.filter(|word| !word.is_empty()).collect()
}

/// Returns the variable that sets a key. A shell takes no hyphen in its name.
fn variable_of(key: &str) -> String {
    let upper = key.to_ascii_uppercase().replace('-', "_");
    format!("{PREFIX}{}", upper.replace('.', "__"))
}

/// Returns the key that the words of a name probably stand for, with one or two underscores between
/// them: `DEPENDENCIES_WEB_SEARCH_TIMEOUT_ATTEMPT` is `dependencies.web_search.timeout.attempt`. It can be
/// set by a variable as it is.
fn meant_key(words: &[&str], dependencies: &[&str]) -> Option<String> {
    let keys = super::Settings::keys();
    let whole = words.concat();
    let is_own = |key: &&String| !key.contains(['*', '[']) && folded(key) == whole;
    if let Some(own) = keys.iter().find(is_own) {
        return Some(own.clone());
    }
    let (first, rest) = words.split_first()?;
    let owner = OWNERS.iter().find(|(_, names)| names.contains(first));
    let owner = owner.map(|(owner, _)| *owner);
    if owner != Some("consumers") {
        let after = if owner.is_some() { rest } else { words };
        let known = dependencies.iter();
        let known = known.filter_map(|name| Some((name, without(after, name)?)));
        // The longest name is the closest one.
        if let Some((name, rest)) = known.max_by_key(|(name, _)| name.len()) {
            let key = key_below(&keys, "dependencies", rest)?;
            return Some(format!("dependencies.{name}.{key}"));
        }
    }
    let Some(owner) = owner else {
        // Such as GATEWAY_PORT.
        let meant = foreign_names::meant(&rest.join("_"), false)?;
        let key = format!("{first}.{}", last_of(meant));
        return keys.contains(&key).then_some(key);
    };
    // The longest key that it ends with; what is before it is the name.
    (1..rest.len()).find_map(|length| {
        let (name, key) = rest.split_at(length);
        let key = key_below(&keys, owner, key)?;
        Some(format!("{owner}.{}.{key}", name.join("_")))
    })
}

/// Returns the words behind a name.
fn without<'w>(words: &'w [&'w str], name: &str) -> Option<&'w [&'w str]> {
    let name = folded(name);
    let mut lengths = 1..words.len();
    let length = lengths.find(|length| words[..*length].concat() == name)?;
    Some(&words[length..])
}

/// Returns the key below a dependency or a consumer that these words stand for.
fn key_below(keys: &[String], owner: &str, words: &[&str]) -> Option<String> {
    let (first, rest) = words.split_first()?;
    if owner == "dependencies" && NAMED.contains(first) {
        return (!rest.is_empty()).then(|| format!("{first}.{}", rest.join("_")));
    }
    let begin = format!("{owner}.*.");
    let below = keys.iter().filter_map(|key| key.strip_prefix(&begin));
    let mut below = below.filter(|key| !key.contains(['*', '[']));
    let whole = words.concat();
    let own = below.find(|key| folded(key) == whole);
    // A section takes no value itself.
    own.map(str::to_owned)
        .or_else(|| misplaced_value::main_key_of(&whole))
}

/// Returns the advice about a variable of which the first part is no section, such as
/// `BREAKERBOX__DEPENDENCIES_WEB_URL` or `BREAKERBOX__WEB__URL`. `root`: has the key and its value.
pub(super) fn at_top(root: &Section<'_>, key: &str, value: &Value) -> Option<KeyAdvice> {
    let is_owner = OWNERS.iter().any(|(_, names)| names.contains(&key));
    if !root.path.is_empty() || is_owner || !is_of_variable(value) {
        return None;
    }
    let path = first_path(key, value);
    let (text, allowed) = if LOG.contains(&folded(&path).as_str()) {
        (LOG_ADVICE.to_owned(), "RUST_LOG".to_owned())
    } else {
        let named = root.value("dependencies").map(|table| &table.kind);
        let names: Vec<&str> = match named {
            Some(ValueKind::Table(table)) => table.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let meant = variable_of(&meant_key(&words_of(&path), &names)?);
        (format!("did you mean {meant}?"), meant)
    };
    Some(KeyAdvice {
        text: format!("unknown key, {text}"),
        name: key.to_owned(),
        allowed: Some(allowed),
    })
}

/// Returns true for a value that a variable has set.
pub(super) fn is_of_variable(value: &Value) -> bool {
    let rank = ValueOrigin::of(value).rank;
    matches!(rank, LayerRank::DotEnv | LayerRank::Environment)
}

/// Returns the path of the first value in a table.
fn first_path(key: &str, value: &Value) -> String {
    let ValueKind::Table(table) = &value.kind else {
        return key.to_owned();
    };
    let first = table.iter().min_by_key(|(name, _)| name.as_str());
    first.map_or_else(
        || key.to_owned(),
        |(name, value)| format!("{key}.{}", first_path(name, value)),
    )
}

/// Reports a variable that gives a value to a name of a dependency, such as
/// `BREAKERBOX__DEPENDENCIES__WEB_URL`. Returns false for anything else, and if no key of `dependencies`
/// can be meant.
pub(super) fn is_named_too_early(table: &Section<'_>, name: &str, dependencies: &[&str]) -> bool {
    let is_text = |value: &&Value| !matches!(value.kind, ValueKind::Table(_));
    let given = table.value(name).filter(is_text);
    let mut words = vec!["dependencies"];
    words.extend(words_of(name));
    let meant = given.filter(|value| is_of_variable(value));
    let meant = meant.and_then(|value| Some((value, meant_key(&words, dependencies)?)));
    let Some((value, key)) = meant else {
        return false;
    };
    let reason = format!("did you mean {key}? A dot is two underscores in a variable");
    let (masked, origin) = (Some(MASK.to_owned()), ValueOrigin::of(value));
    let allowed = variable_of(&key);
    table.push(table.path_of(name), masked, Some(reason), &allowed, &origin);
    true
}

/// Splits a name that is a dependency's with one of its sections behind it: a variable had one
/// underscore where two stand for a dot.
pub(super) fn split<'n>(name: &'n str, dependencies: &[&'n str]) -> Option<(&'n str, &'n str)> {
    let known = KnownKeys::new();
    let sections = known.below("dependencies.*");
    dependencies.iter().find_map(|owner| {
        let rest = name.strip_prefix(owner)?.strip_prefix('_')?;
        let begins = |section: &&str| {
            let inner = rest.strip_prefix(*section);
            inner.is_some_and(|inner| inner.is_empty() || inner.starts_with('_'))
        };
        sections.iter().any(begins).then_some((*owner, rest))
    })
}

/// Returns the reason and the allowed name for such a variable.
pub(super) fn one_underscore(owner: &str, rest: &str) -> (String, String) {
    let reason = format!(
        "no file has this dependency, did you mean dependencies.{owner}.{rest}? A dot is two \
         underscores in a variable"
    );
    let upper = |text: &str| text.to_ascii_uppercase();
    let allowed = format!("{PREFIX}DEPENDENCIES__{}__{}…", upper(owner), upper(rest));
    (reason, allowed)
}

/// Returns the dependency that has an underscore in its name where a variable had two: `WEB__SEARCH` for
/// `web_search` is a key `search` of a dependency `web`.
pub(super) fn joined<'n>(
    section: &Section<'_>,
    name: &str,
    dependencies: &[&'n str],
) -> Option<&'n str> {
    let meant = dependencies.iter().filter(|other| {
        let rest = other.strip_prefix(name);
        let rest = rest.and_then(|rest| rest.strip_prefix(['_', '-']));
        rest.is_some_and(|rest| {
            let first = rest.split(['_', '-']).next().unwrap_or(rest);
            section.has(rest) || section.has(first)
        })
    });
    // The longest name is the closest one.
    meant.copied().max_by_key(|other| other.len())
}

/// Returns the reason and the allowed name for such a variable.
pub(super) fn one_too_many(meant: &str) -> (String, String) {
    let reason = format!(
        "no file has this dependency, did you mean {meant}? A dot is two underscores in a variable, \
         and an underscore of a name is one"
    );
    let upper = meant.to_ascii_uppercase();
    (reason, format!("{PREFIX}DEPENDENCIES__{upper}__…"))
}

/// Returns true for the variables that Kubernetes sets for a service of the name `breakerbox`.
fn is_of_a_cluster(name: &str, value: &str) -> bool {
    let rest = name.strip_prefix("BREAKERBOX_").unwrap_or_default();
    rest.starts_with("SERVICE_HOST")
        || rest.starts_with("SERVICE_PORT")
        || rest.starts_with("PORT") && (rest.contains("_TCP") || value.contains("://"))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::advice;

    #[test]
    fn edge_7_a_variable_with_one_underscore_where_two_belong_gets_its_right_name() {
        const FILE: &str =
            "[dependencies.weather]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n";
        for (name, expected) in [
            (
                "DEPENDENCIES_WEATHER_URL",
                "BREAKERBOX__DEPENDENCIES__WEATHER__URL",
            ),
            (
                "DEPENDENCIES__WEATHER_TIMEOUT_ATTEMPT",
                "dependencies.weather.timeout.attempt?",
            ),
            (
                "WEATHER__TIMEOUT__ATTEMPT",
                "BREAKERBOX__DEPENDENCIES__WEATHER__TIMEOUT__ATTEMPT?",
            ),
            ("RUST_LOG", "by RUST_LOG, such as RUST_LOG=debug"),
            (
                "DEPENDENCIES__WEATHER__FALLBACK__0__KIND",
                "BREAKERBOX__DEPENDENCIES__WEATHER__FALLBACK=[{",
            ),
        ] {
            let name = format!("BREAKERBOX__{name}");
            let loader = Settings::loader().bare().toml(FILE);
            let error = loader.env_vars([(name, "hunter2")]).load().unwrap_err();
            let told = error.to_string();
            assert!(told.contains(expected), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
            assert_eq!(error.problems().len(), 1, "{told}");
        }
        let loader = Settings::loader().bare().toml(FILE);
        let error = loader.env_vars([("BREAKERBOX__", "x")]).load().unwrap_err();
        assert!(!error.to_string().contains("did you mean"), "{error}");
    }

    #[test]
    fn edge_7_an_unknown_variable_says_what_was_probably_meant() {
        for (name, expected) in [
            ("BREAKERBOX_ADMIN_TOKEN", "BREAKERBOX__ADMIN__TOKEN?"),
            ("BREAKERBOX_TOKEN", "BREAKERBOX__ADMIN__TOKEN?"),
            (
                "BREAKERBOX_DEPENDENCIES_WEB_SEARCH_TIMEOUT_ATTEMPT",
                "did you mean BREAKERBOX__DEPENDENCIES__WEB_SEARCH__TIMEOUT__ATTEMPT?",
            ),
            (
                "BREAKERBOX_DEPENDENCIES_API_URL",
                "did you mean BREAKERBOX__DEPENDENCIES__API__URL?",
            ),
            ("BREAKERBOX_CONFIG", "--config DIR"),
            ("BREAKERBOX_CONFIG_DIR", "--config DIR"),
            ("BREAKER_BOX__ADMIN__TOKEN", "BREAKERBOX__ADMIN__TOKEN?"),
            ("BREAKERBOX_LOG", "RUST_LOG"),
            (
                "BREAKERBOX_WEATHER_TIMEOUT_ATTEMPT",
                "did you mean BREAKERBOX__DEPENDENCIES__WEATHER__TIMEOUT__ATTEMPT?",
            ),
            (
                "BREAKERBOX_WEB_SEARCH_URL",
                "did you mean BREAKERBOX__DEPENDENCIES__WEB_SEARCH__URL?",
            ),
            (
                "BREAKERBOX_DEPENDENCIES_WEATHER_HEADERS_X_API_KEY",
                "did you mean BREAKERBOX__DEPENDENCIES__WEATHER__HEADERS__X_API_KEY?",
            ),
            (
                "BREAKERBOX_DEPENDENCIES_NEW_TIMEOUT",
                "did you mean BREAKERBOX__DEPENDENCIES__NEW__TIMEOUT__ATTEMPT?",
            ),
            (
                "BREAKERBOX_CONSUMERS_JOBS_ACK_WAIT",
                "did you mean BREAKERBOX__CONSUMERS__JOBS__ACK_WAIT?",
            ),
            (
                "BREAKERBOX_GATEWAY_PORT",
                "did you mean BREAKERBOX__GATEWAY__BIND?",
            ),
            (
                "BREAKERBOX_ADMIN_PORT",
                "did you mean BREAKERBOX__ADMIN__BIND?",
            ),
            ("BREAKERBOX_CONSUMERS_STREAM", "BREAKERBOX__SECTION__KEY"),
            ("BREAKERBOX_DEPENDENCIES_URL", "BREAKERBOX__SECTION__KEY"),
            (
                "BREAKERBOX_DEPENDENCIES_API_COLOUR",
                "BREAKERBOX__SECTION__KEY",
            ),
        ] {
            let advice = advice(name, &["weather", "web-search"]);
            assert!(advice.contains(expected), "{name}: {advice}");
        }
    }
}
