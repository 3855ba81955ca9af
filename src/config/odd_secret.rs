//! Warnings about secrets that were hardly meant as they are: placeholders, quotes, variables.
//!
//! Nothing here shows a secret.

use super::section::Section;

/// Warns of a secret that was hardly meant as it is.
pub(super) fn warn_of_secret(section: &Section<'_>, key: &str, value: &str) {
    if let Some(text) = odd_secret(value) {
        section.warn(key, text.to_owned());
    }
}

/// Returns the odd thing about a secret.
fn odd_secret(value: &str) -> Option<&'static str> {
    const PLACEHOLDERS: [&str; 7] = [
        "yourapikey",
        "yourkey",
        "yourtoken",
        "yoursecret",
        "changeme",
        "replaceme",
        "insertkeyhere",
    ];
    let value = value.trim();
    if value.contains("${") && value.contains('}') {
        return Some(
            "it is used literally: variables are not put in, set the key itself by a variable of \
             BREAKERBOX__",
        );
    }
    let is_quoted = |quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
    if is_quoted('"') || is_quoted('\'') {
        return Some("the quotes are a part of it, which is hardly meant");
    }
    let last = value.rsplit(' ').next().unwrap_or(value);
    let letters = last.chars().filter(char::is_ascii_alphanumeric);
    let plain: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    let is_bracketed = last.starts_with('<') && last.ends_with('>');
    let is_placeholder = PLACEHOLDERS.iter().any(|word| plain.contains(word));
    (is_bracketed || is_placeholder).then_some("it looks like a placeholder, not like a secret")
}

#[cfg(test)]
mod tests {
    use super::odd_secret;

    #[test]
    fn edge_7_a_secret_that_was_hardly_meant_is_known() {
        for odd in [
            "YOUR_API_KEY",
            "Bearer <token>",
            "changeme-changeme",
            "${OPENAI_API_KEY}",
            "\"0123456789abcdef\"",
        ] {
            assert!(odd_secret(odd).is_some(), "{odd}");
        }
        for good in [
            "sk-abcdefabcdefabc",
            "a-token-of-my-own",
            "Bearer abc",
            "$1{",
        ] {
            assert!(odd_secret(good).is_none(), "{good}");
        }
    }
}
