//! Redaction of possible secrets in texts from other parties: error texts of client libraries
//! contain whole URLs, with keys in their query.

use std::borrow::Cow;

/// The replacement for a masked part.
const MASK: &str = "***";

/// Returns the text with the query, the user and the password of every URL masked, and with what its
/// path or its fragment names.
///
/// # Source  Rule SEC-1 in docs/rules.md.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, address) = rest.split_at(at + "://".len());
        clean.push_str(before);
        // Another address may follow without a gap.
        let path = address[..end_of(address)].split('?').next();
        let next = path.and_then(|path| path.find("://"));
        let end = next.unwrap_or_else(|| end_of(address));
        let (address, after) = address.split_at(end);
        push_address(&mut clean, address);
        rest = after;
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

/// Returns the end of an address at the begin of a text: a letter that none has, or a bracket that was
/// opened before it.
fn end_of(text: &str) -> usize {
    let mut opened = Vec::new();
    for (at, letter) in text.char_indices() {
        match letter {
            '"' | '<' | '>' | '`' => return at,
            letter if letter.is_whitespace() => return at,
            '(' => opened.push(')'),
            '[' => opened.push(']'),
            '{' => opened.push('}'),
            ')' | ']' | '}' if opened.pop() != Some(letter) => return at,
            _ => {}
        }
    }
    text.len()
}

fn push_address(clean: &mut String, address: &str) {
    let host = address.find(['/', '?', '#']).unwrap_or(address.len());
    let (authority, rest) = address.split_at(host);
    match authority.rsplit_once('@') {
        Some((_, host)) => {
            clean.push_str(MASK);
            clean.push('@');
            clean.push_str(host);
        }
        None => clean.push_str(authority),
    }
    // A session may be in a parameter of the path, and a token in the fragment.
    let named = rest.find([';', '#']).filter(|at| rest[*at..].contains('='));
    match rest.find('?').into_iter().chain(named).min() {
        // SEC-1: each of the separators is one byte.
        Some(at) => {
            clean.push_str(&rest[..=at]);
            clean.push_str(MASK);
        }
        None => clean.push_str(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sec_1_item_62_queries_and_passwords_are_masked_and_nothing_else() {
        let cases = [
            ("no address here: a?b=c", "no address here: a?b=c"),
            (
                "error for url (https://api.example/v1?key=SECRET&q=x): timed out",
                "error for url (https://api.example/v1?***): timed out",
            ),
            (
                "\"http://me:SECRET@host:1/path\" and http://b?key=SECRET",
                "\"http://***@host:1/path\" and http://b?***",
            ),
            ("http://a/b http://c", "http://a/b http://c"),
            (
                "(http://[::1]:9001/v1?key=SECRET)",
                "(http://[::1]:9001/v1?***)",
            ),
            ("https://api/x?key=a(SECRET), b", "https://api/x?*** b"),
            ("[{http://me:se'cret@host/}]", "[{http://***@host/}]"),
            (
                "'http://a/x','http://u:SECRET@b/'",
                "'http://a/x','http://***@b/'",
            ),
            (
                "nats://a:1|nats://u:SECRET@b:2",
                "nats://a:1|nats://***@b:2",
            ),
            ("http://a,http://u:SECRET@b", "http://a,http://***@b"),
            ("http://a/b;sid=SECRET/c", "http://a/b;***"),
            ("http://a/b#access_token=SECRET", "http://a/b#***"),
            ("http://a/b#part; c", "http://a/b#part; c"),
            ("://", "://"),
            ("x://é?é", "x://é?***"),
        ];
        for (given, clean) in cases {
            assert_eq!(redact(given), clean);
        }
    }
}
