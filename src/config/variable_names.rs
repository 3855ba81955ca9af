//! Names of variables and flags: bounds before they become keys, and unknown ones of ours.

use std::collections::BTreeMap;

use super::known_keys::{KnownKeys, folded};
use super::problem::Warning;
use super::section::Section;

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

/// Warns of each variable that looks like one of ours and sets nothing.
pub(super) fn unknown(
    variables: &[(String, String)],
    place: impl Fn(&str) -> String,
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
        text: format!("unknown variable, it sets nothing{}", advice(name)),
        origin: place(name),
    })
    .collect()
}

/// Returns the name that was probably meant.
fn advice(name: &str) -> String {
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(char::is_ascii_alphanumeric);
        letters.collect::<String>().to_ascii_lowercase()
    };
    let is_split = name.starts_with(SPLIT);
    let begin = if is_split { SPLIT.len() } else { OURS.len() };
    let given = plain(&name[begin..]);
    let keys = super::Settings::keys();
    let meant = keys.iter().find(|key| plain(key) == given);
    let of_key = |key: &str| {
        let key = key.to_ascii_uppercase().replace('.', "__");
        format!(", did you mean {PREFIX}{key}?")
    };
    match meant {
        Some(key) => of_key(key),
        None if FOLDER.contains(&given.as_str()) => {
            ", the folder of the configuration is given by --config DIR".to_owned()
        }
        None if ["log", "loglevel", "rustlog"].contains(&given.as_str()) => {
            ", the log lines are chosen by RUST_LOG, such as RUST_LOG=debug".to_owned()
        }
        None if given == "token" => of_key("admin.token"),
        None if ["bind", "listen", "address"].contains(&given.as_str()) => of_key("gateway.bind"),
        None if given == "env" || given == "environment" => {
            format!(", did you mean {ENVIRONMENT}?")
        }
        None => match of_dependency(name) {
            Some(key) => of_key(&key),
            None => format!(", allowed: {ENVIRONMENT}, or {PREFIX}SECTION__KEY"),
        },
    }
}

/// Returns the key of a dependency that a name with single underscores probably stands for:
/// `BREAKERBOX_DEPENDENCIES_WEB_SEARCH_TIMEOUT_ATTEMPT` is `dependencies.web_search.timeout.attempt`.
fn of_dependency(name: &str) -> Option<String> {
    let rest = name.get(OURS.len()..)?.to_ascii_lowercase();
    let parts: Vec<&str> = rest.split('_').filter(|part| !part.is_empty()).collect();
    let (first, rest) = parts.split_first()?;
    if !["dependencies", "dependency"].contains(first) {
        return None;
    }
    let known = KnownKeys::new();
    // The longest key that it ends with; what is before it is the name.
    (1..rest.len()).find_map(|length| {
        let (owner, key) = rest.split_at(length);
        let key = key.concat();
        let found = known.of_dependency().find(|known| folded(known) == key)?;
        Some(format!("dependencies.{}.{found}", owner.join("_")))
    })
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
    use super::advice;

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
                "BREAKERBOX_DEPENDENCIES_API_COLOUR",
                "BREAKERBOX__SECTION__KEY",
            ),
        ] {
            let advice = advice(name);
            assert!(advice.contains(expected), "{name}: {advice}");
        }
    }
}
