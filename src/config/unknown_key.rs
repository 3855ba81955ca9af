//! Advice about a key that a section does not know: the section that it belongs to, or its name here.
//!
//! Nothing here shows a value.

use breakerbox_actors::nearest_word;
use config::{Value, ValueKind};

use super::foreign_names;
use super::known_keys::{KnownKeys, folded, last_of};

/// The key that was probably meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyAdvice {
    /// The reason, in words.
    pub(super) text: String,
    /// The name of the key that was probably meant.
    pub(super) name: String,
    /// The allowed keys, if they are not those of the section.
    pub(super) allowed: Option<String>,
}

impl KeyAdvice {
    fn here(name: &str, hint: &str) -> Self {
        Self {
            text: format!("unknown key, did you mean {name}?{hint}"),
            name: name.to_owned(),
            allowed: None,
        }
    }

    fn elsewhere(text: String, keys: &[String]) -> Self {
        Self {
            text,
            name: keys.first().map_or("", |key| last_of(key)).to_owned(),
            allowed: Some(keys.join(" or ")),
        }
    }
}

/// Returns the key that was probably meant. `path`: of the section; `known`: its own keys.
pub(super) fn advice(
    path: &str,
    (key, value): (&str, &Value),
    known: &[&'static str],
) -> Option<KeyAdvice> {
    if folded(key).is_empty() {
        // No letter of it says what was meant.
        return None;
    }
    let same = |one: &&&str| folded(one) == folded(key);
    if let Some(own) = known.iter().find(same) {
        return Some(KeyAdvice::here(own, ""));
    }
    if let Some(whole) = split_key(key, value, known) {
        return Some(whole);
    }
    let is_foreign = path.starts_with("dependencies.") && foreign_names::meant(key, true).is_some();
    let in_number = |own: &&&str| !is_foreign && (is_plural(own, key) || is_plural(key, own));
    if let Some(own) = known.iter().find(in_number) {
        let mut advice = KeyAdvice::here(own, "");
        if path.is_empty() {
            let is_named = ["dependencies", "consumers"].contains(own);
            advice.allowed = Some(match is_named {
                true => format!("[{own}.{}]", first_name(value)),
                false => format!("[{own}]"),
            });
        }
        return Some(advice);
    }
    if let Some(own) = without_unit(key).and_then(|short| known.iter().find(|own| **own == short)) {
        return Some(KeyAdvice::here(
            own,
            " with a unit in its value, such as \"250ms\"",
        ));
    }
    if let Some(advice) = quoted_key(path, key) {
        return Some(advice);
    }
    if let Some(advice) = dotted_name(path, key, value) {
        return Some(advice);
    }
    if let Some(advice) = misplaced_table(path, key, value) {
        return Some(advice);
    }
    let all = KnownKeys::new();
    let place = SectionPlace::of(path);
    let is_in_dependency = place.owner.is_some();
    if let Some(meant) = in_section(path, key) {
        return Some(place.renamed(meant));
    }
    if path.is_empty() && is_section_of_dependency(&all, key, value) {
        return Some(place.renamed(&format!("dependencies.NAME.{key}")));
    }
    if let Some(found) = place.named(&all, key, is_in_dependency) {
        return Some(found);
    }
    if let Some(meant) = switch(path, key) {
        return Some(place.renamed(meant));
    }
    if let Some(meant) = foreign_names::meant(key, is_in_dependency) {
        // CFG-1: the section's own key of this meaning is nearer than that of another one.
        let own = known.iter().find(|own| **own == last_of(meant));
        let own = own.filter(|_| !is_in_dependency && !path.is_empty());
        return Some(match own {
            Some(own) => place.renamed(&format!("{path}.{own}")),
            None => place.renamed(meant),
        });
    }
    // CFG-1: a name as it is in another section is nearer than a similar one here.
    if let Some(found) = place.named(&all, key, !is_in_dependency) {
        return Some(found);
    }
    if let Some(own) = nearest_word(key, known.iter().copied()) {
        return Some(KeyAdvice::here(own, ""));
    }
    if let Some(meant) = foreign_names::nearly(key, is_in_dependency) {
        return Some(place.renamed(meant));
    }
    place.similar(&all, key)
}

/// Returns the key of which a variable has taken the words apart, as `BREAKER__FAILURE__THRESHOLD` does.
fn split_key(key: &str, value: &Value, known: &[&'static str]) -> Option<KeyAdvice> {
    let ValueKind::Table(table) = &value.kind else {
        return None;
    };
    let is_whole = |own: &&&str| {
        let mut parts = table.keys();
        parts.any(|part| own.split_once('_') == Some((key, part)))
    };
    let own = known.iter().find(is_whole)?;
    Some(KeyAdvice::here(own, ""))
}

/// Returns what stands for a switch where the section itself takes no "off".
fn switch(path: &str, key: &str) -> Option<&'static str> {
    if !["enabled", "enable", "disabled", "disable"].contains(&folded(key).as_str()) {
        return None;
    }
    let mut parts = path.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("dependencies"), Some(_), None) => Some(
            "no section to leave a dependency out, or override = { mode = \"open\", \
             reason = \"…\" } to refuse its calls",
        ),
        (Some("dependencies"), Some(_), Some("breaker")) => Some(
            "override = { mode = \"disable\", reason = \"…\" } beside this section to take the \
             breaker out; \"off\" takes out one of its rules",
        ),
        _ => None,
    }
}

/// Returns the key that a name stands for in one section only, relative to the dependency.
fn in_section(path: &str, key: &str) -> Option<&'static str> {
    if path == "gateway" && folded(key) == "timeout" {
        return Some("dependencies.NAME.timeout");
    }
    let section = path.split('.').nth(2)?.split('[').next()?;
    match (section, folded(key).as_str()) {
        ("auth", "token") => Some("auth.tokens"),
        ("fallback", "ttl" | "maxttl" | "age" | "expiry") => Some("fallback.max_age"),
        ("fallback", "url" | "address" | "upstream") => {
            Some("kind = \"dependency\" with the name of a dependency that has this url")
        }
        ("hedge", "after" | "wait" | "timeout" | "threshold") => Some("hedge.delay"),
        ("probe", "interval" | "period" | "frequency") => Some("probe.every"),
        ("rate_limit", "window" | "period" | "interval") => Some("rate_limit.per"),
        ("retry", "initial" | "initialdelay" | "initialinterval" | "min" | "delay") => {
            Some("retry.backoff.base")
        }
        _ => None,
    }
}

/// Returns true for a table at the top that is a section of every dependency.
fn is_section_of_dependency(all: &KnownKeys, key: &str, value: &Value) -> bool {
    let begins = |known: &str| known.split(['.', '[']).next() == Some(key);
    // Such as `auth`: the gateway has one too.
    let mut others = all.of_process().filter_map(|known| known.rsplit_once('.'));
    let is_of_process = others.any(|(sections, _)| sections.split('.').any(|own| own == key));
    let is_table = matches!(value.kind, ValueKind::Table(_));
    is_table && !is_of_process && all.of_dependency().any(begins)
}

/// Recognizes the path of a known key in quotes, which make a single name of it.
fn quoted_key(path: &str, key: &str) -> Option<KeyAdvice> {
    let full = match path.is_empty() {
        true => key.to_owned(),
        false => format!("{path}.{key}"),
    };
    let all = KnownKeys::new();
    let of_dependency = full
        .strip_prefix("dependencies.")
        .and_then(|rest| rest.split_once('.'));
    let is_known = key.contains('.')
        && match of_dependency {
            Some((_, own)) => all.of_dependency().any(|known| known == own),
            None => all.of_process().any(|known| known == full),
        };
    is_known.then(|| {
        let text = format!("the quotes make one name of it, did you mean {key} without them?");
        KeyAdvice::elsewhere(text, &[full])
    })
}

/// Returns true if the second name is the plural of the first.
fn is_plural(one: &str, other: &str) -> bool {
    let of_y = || other.strip_suffix("ies") == one.strip_suffix('y');
    other.strip_suffix('s') == Some(one) || one.ends_with('y') && of_y()
}

/// Returns the first name in a table, as an example.
fn first_name(value: &Value) -> String {
    let ValueKind::Table(table) = &value.kind else {
        return "NAME".to_owned();
    };
    let mut names: Vec<&String> = table.keys().collect();
    names.sort();
    let first = names
        .into_iter()
        .find(|name| super::is_dependency_name(name));
    first.map_or_else(|| "NAME".to_owned(), Clone::clone)
}

fn without_unit(key: &str) -> Option<&str> {
    let units = [
        "_ms", "_millis", "_secs", "_seconds", "_sec", "_s", "_minutes", "_min",
    ];
    units.iter().find_map(|unit| key.strip_suffix(unit))
}

/// Recognizes a dependency with a dot in its name.
fn dotted_name(path: &str, key: &str, value: &Value) -> Option<KeyAdvice> {
    let ValueKind::Table(table) = &value.kind else {
        return None;
    };
    let owner = path.strip_prefix("dependencies.")?;
    let is_dependency = ["kind", "url", "command"]
        .iter()
        .any(|key| table.contains_key(*key));
    (is_dependency && !owner.contains('.')).then(|| {
        let meant = format!("dependencies.{owner}_{key}");
        let text = format!("a dot ends a name, did you mean [{meant}]?");
        KeyAdvice::elsewhere(text, &[meant])
    })
}

/// Recognizes a dependency outside of `dependencies`.
fn misplaced_table(path: &str, key: &str, value: &Value) -> Option<KeyAdvice> {
    let ValueKind::Table(table) = &value.kind else {
        return None;
    };
    let is_dependency = ["kind", "url", "command"]
        .iter()
        .any(|key| table.contains_key(*key));
    (path.is_empty() && is_dependency).then(|| {
        let meant = format!("dependencies.{key}");
        let text = format!("unknown section, did you mean [{meant}]?");
        KeyAdvice::elsewhere(text, &[meant])
    })
}

/// The section in which the key is.
struct SectionPlace {
    /// The path of the dependency around it, if there is one.
    owner: Option<String>,
}

impl SectionPlace {
    fn of(path: &str) -> Self {
        let mut parts = path.split('.');
        let owner = match (parts.next(), parts.next()) {
            (Some("dependencies"), Some(name)) => Some(format!("dependencies.{name}")),
            _ => None,
        };
        Self { owner }
    }

    /// Finds the sections that have a key of this name: those of a dependency, or the others.
    fn named(&self, all: &KnownKeys, key: &str, of_dependency: bool) -> Option<KeyAdvice> {
        let key = folded(key);
        let is_it = |known: &&str| folded(last_of(known)) == key || folded(known) == key;
        self.found(all, &is_it, of_dependency)
    }

    /// Finds a key of a similar name in other sections.
    fn similar(&self, all: &KnownKeys, key: &str) -> Option<KeyAdvice> {
        let of_dependency = self.owner.is_some();
        let near = match of_dependency {
            true => nearest_word(key, all.of_dependency().map(last_of)),
            false => nearest_word(key, all.of_process().map(last_of)),
        }?;
        // Short names are similar to many.
        let is_it = |known: &&str| last_of(known) == near;
        (near.len() >= 5).then(|| self.found(all, &is_it, of_dependency))?
    }

    fn found(
        &self,
        all: &KnownKeys,
        is_it: &dyn Fn(&&str) -> bool,
        of_dependency: bool,
    ) -> Option<KeyAdvice> {
        let owner = self.owner.as_deref().unwrap_or("dependencies.NAME");
        let mut keys: Vec<String> = match of_dependency {
            true => {
                let found = all.of_dependency().filter(is_it);
                found
                    .map(|key| format!("{owner}.{}", key.replace("[0]", "")))
                    .collect()
            }
            false => all.of_process().filter(is_it).map(str::to_owned).collect(),
        };
        // The sections on top are the likeliest.
        keys.sort_by_key(|key| key.matches('.').count());
        keys.truncate(3);
        let first = keys.first()?;
        let section = |key: &str| match key.rsplit_once('.') {
            Some((section, _)) => section.to_owned(),
            None => "the top".to_owned(),
        };
        let dots = first.matches('.').count();
        // Which of several alike was meant is not known.
        let alike = keys.iter().filter(|key| key.matches('.').count() == dots);
        let alike: Vec<&String> = alike.collect();
        let sections: Vec<String> = alike.iter().map(|key| section(key)).collect();
        let short: Vec<&str> = alike.iter().map(|key| self.relative(key)).collect();
        let (sections, short) = (sections.join(" or "), short.join(" or "));
        let text = format!("unknown key here, it belongs to {sections}, did you mean {short}?");
        Some(KeyAdvice::elsewhere(text, &keys))
    }

    /// Returns the advice for a name of another system.
    fn renamed(&self, meant: &str) -> KeyAdvice {
        let is_key = !meant.contains(' ');
        let full = match &self.owner {
            _ if !is_key => meant.to_owned(),
            Some(owner) => format!("{owner}.{meant}"),
            None => meant.to_owned(),
        };
        let text = match is_key {
            true => format!("unknown key, did you mean {meant}?"),
            false => format!("unknown key, use {meant}"),
        };
        KeyAdvice::elsewhere(text, &[full])
    }

    /// Returns the key as it is written within the dependency.
    fn relative<'k>(&self, key: &'k str) -> &'k str {
        let inner = self
            .owner
            .as_ref()
            .and_then(|owner| key.strip_prefix(owner.as_str()));
        let inner = inner.and_then(|inner| inner.strip_prefix('.'));
        match inner {
            // Below the dependency itself, its path says where.
            Some(inner) if inner.contains('.') => inner,
            _ => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, key: &str) -> String {
        let known: &[&'static str] = match path {
            "dependencies.web" => &["breaker", "kind", "retry", "timeout", "url"],
            "dependencies.web.timeout" => &["attempt", "total"],
            "dependencies.web.breaker" => &["failure_threshold", "recovery_timeout"],
            "gateway" => &["bind", "send_timeout"],
            _ => &["admin", "dependencies", "gateway"],
        };
        let value = Value::new(None, 3);
        advice(path, (key, &value), known).map_or_else(String::new, |advice| advice.text)
    }

    #[test]
    fn cfg_1_an_unknown_key_is_looked_up_in_all_sections() {
        let cases = [
            (
                "dependencies.web",
                "recovery_timeout",
                "belongs to dependencies.web.breaker, did you mean breaker.recovery_timeout?",
            ),
            (
                "dependencies.web",
                "recovery_tmeout",
                "did you mean breaker.recovery_timeout?",
            ),
            (
                "dependencies.web",
                "retries",
                "did you mean retry.max_attempts?",
            ),
            (
                "dependencies.web",
                "timeout_attempt",
                "did you mean timeout.attempt?",
            ),
            ("dependencies.web.breaker", "kind", "belongs to"),
            (
                "dependencies.web.breaker",
                "failureThreshold",
                "did you mean failure_threshold?",
            ),
            (
                "dependencies.web.breaker",
                "failure_treshold",
                "did you mean failure_threshold?",
            ),
            (
                "dependencies.web.breaker",
                "reset_timeout",
                "did you mean breaker.recovery_timeout?",
            ),
            (
                "dependencies.web.breaker",
                "sleepWindow",
                "did you mean breaker.recovery_timeout?",
            ),
            (
                "dependencies.web.timeout",
                "attempt_ms",
                "did you mean attempt? with a unit",
            ),
            (
                "",
                "max_connections",
                "belongs to gateway, did you mean gateway.max_connections?",
            ),
            ("", "breaker", "did you mean dependencies.NAME.breaker?"),
            ("", "port", "did you mean gateway.bind?"),
            (
                "",
                "bind",
                "it belongs to admin or gateway, did you mean admin.bind or gateway.bind?",
            ),
            (
                "dependencies.web",
                "bind",
                "did you mean admin.bind or gateway.bind?",
            ),
            (
                "dependencies.web",
                "max_conns",
                "did you mean bulkhead.max_concurrent?",
            ),
            ("gateway", "read_timeout", "use header_timeout for the head"),
            ("dependencies.web", "upstream", "did you mean url?"),
            ("", "services", "did you mean dependencies?"),
        ];
        for (path, key, expected) in cases {
            let text = text(path, key);
            assert!(text.contains(expected), "{path} {key}: {text}");
        }
        assert_eq!(text("dependencies.web", "qqq"), "");
    }

    #[test]
    fn cfg_1_a_key_that_a_variable_has_taken_apart_is_put_together() {
        let table = [("threshold".to_owned(), Value::new(None, 3))];
        let table = Value::new(None, config::Map::from_iter(table));
        let known = ["failure_rate", "failure_threshold"];
        let advice = advice("dependencies.web.breaker", ("failure", &table), &known);
        assert_eq!(advice.unwrap().name, "failure_threshold");
    }

    #[test]
    fn cfg_1_a_dependency_at_the_top_is_recognized() {
        let table = [("kind".to_owned(), Value::new(None, "http"))];
        let table = Value::new(None, config::Map::from_iter(table));
        let advice = advice("", ("weather", &table), &["gateway"]).unwrap();
        assert!(advice.text.contains("did you mean [dependencies.weather]?"));
    }
}
