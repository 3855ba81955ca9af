//! The key `links` of a dependency: pages for the operator, by name.

use std::collections::BTreeMap;

use config::ValueKind;

use super::value_type::ValueType;

/// Allowed tables.
const ALLOWED: &str = "a table of up to 8 pages by name, such as { runbook = \
                       \"https://wiki.internal/payments\" }: http or https, without user";
/// Maximum number of links of a dependency; they share one line of the dashboard.
const MAX_LINKS: usize = 8;
/// Maximum length of a name, in bytes.
const MAX_NAME: usize = 32;
/// Maximum length of an address, in bytes; those of tracing systems contain whole queries.
const MAX_ADDRESS: usize = 2048;

/// Returns the type of the key.
pub(super) fn links() -> ValueType<'static, BTreeMap<String, String>> {
    let parse = |value: &config::Value| {
        let ValueKind::Table(table) = &value.kind else {
            return None;
        };
        let links = table.iter().map(|(name, page)| match &page.kind {
            ValueKind::String(page) if is_name(name) && is_page(page) => {
                Some((name.clone(), page.clone()))
            }
            _ => None,
        });
        let links: BTreeMap<_, _> = links.collect::<Option<_>>()?;
        (links.len() <= MAX_LINKS).then_some(links)
    };
    let show = |links: &BTreeMap<String, String>| {
        let links = links
            .iter()
            .map(|(name, page)| format!("{name} = {page:?}"));
        let links: Vec<String> = links.collect();
        match links.is_empty() {
            true => "{}".to_owned(),
            false => format!("{{ {} }}", links.join(", ")),
        }
    };
    ValueType::new(ALLOWED, parse, show).shown_by(shown)
}

/// Formats a given table, without credentials.
fn shown(value: &config::Value) -> String {
    let ValueKind::Table(table) = &value.kind else {
        return super::masking::show(value);
    };
    let sorted: BTreeMap<_, _> = table.iter().collect();
    let entries = sorted
        .into_iter()
        .map(|(name, page)| format!("{name} = {}", super::masking::show(page)));
    format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_- ".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain)
}

/// Returns true for an address that a browser opens as a page.
///
/// SEC-1: another scheme, such as `javascript`, would run in the dashboard, and a user's password
/// would be shown in it.
fn is_page(page: &str) -> bool {
    let rest = page
        .strip_prefix("http://")
        .or_else(|| page.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let plain = |letter: char| letter.is_ascii_graphic() && !"\"<>\\^`{|}".contains(letter);
    authority.is_some_and(|host| !host.is_empty() && !host.contains('@'))
        && page.len() <= MAX_ADDRESS
        && page.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::{is_name, is_page};

    #[test]
    fn sec_1_links_are_pages_and_hold_no_password() {
        for page in [
            "https://wiki.internal/payments",
            "http://127.0.0.1:16686/search?service=payments&lookback=1h#top",
        ] {
            assert!(is_page(page), "{page}");
        }
        for page in [
            "javascript:alert(1)",
            "data:text/html,x",
            "//elsewhere/x",
            "https://",
            "https://user:secret@wiki.internal/",
            "https://wiki.internal/a b",
            "https://wiki.internal/\"x",
            "",
        ] {
            assert!(!is_page(page), "{page}");
        }
        assert!(is_name("runbook") && is_name("on call") && is_name("trace-2"));
        assert!(!is_name("") && !is_name("<b>") && !is_name(&"x".repeat(33)));
    }
}
