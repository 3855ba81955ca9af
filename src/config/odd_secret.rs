//! Warnings about secrets that were hardly meant as they are: placeholders, quotes, variables.
//!
//! Every secret is looked at where it is read. Nothing here shows a secret.

use config::{Value, ValueKind};

use super::known_keys::folded;

/// The odd thing about a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OddSecret {
    /// The name of a variable, which is not put in.
    Variable,
    /// Quotes that are a part of it.
    Quotes,
    /// The place of a secret, from an example or a form.
    Placeholder,
}

impl OddSecret {
    /// Returns the warning.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Variable => {
                "it is used literally: variables are not put in, set the key itself by a variable of \
                 BREAKERBOX__"
            }
            Self::Quotes => "the quotes are a part of it, which is hardly meant",
            Self::Placeholder => "it looks like a placeholder, not like a secret",
        }
    }
}

/// Returns the odd thing about a given secret, or about one of a list of them.
pub(super) fn of_value(value: &Value) -> Option<OddSecret> {
    match &value.kind {
        ValueKind::String(text) => of_text(text),
        ValueKind::Array(all) => all.iter().find_map(of_value),
        _ => None,
    }
}

/// Returns the odd thing about a secret, or about a text with one in it, such as `Bearer <token>`, an
/// address or a list of headers.
pub(super) fn of_text(value: &str) -> Option<OddSecret> {
    let value = value.trim();
    let has = |open: &str, close: &str| {
        let rest = value.split_once(open);
        rest.is_some_and(|(_, rest)| rest.contains(close))
    };
    let mut words = value.split(|letter: char| letter.is_whitespace() || ",=:/@".contains(letter));
    if has("${", "}") || has("{{", "}}") || words.clone().any(is_variable) {
        return Some(OddSecret::Variable);
    }
    let is_quoted = |quote| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
    if is_quoted('"') || is_quoted('\'') {
        return Some(OddSecret::Quotes);
    }
    let last = value.rsplit(' ').next().unwrap_or(value);
    let is_dots = last.len() > 2 && last.bytes().all(|byte| byte == b'.');
    let is_placeholder = is_dots || is_bracketed(value) || words.any(is_placeholder);
    is_placeholder.then_some(OddSecret::Placeholder)
}

/// Returns true for the name of a variable as a shell has it: `$API_KEY`.
fn is_variable(word: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_uppercase() || letter == '_';
    let name = word.strip_prefix('$').unwrap_or_default();
    let is_plain = |letter: char| is_letter(letter) || letter.is_ascii_digit();
    name.len() > 2 && name.starts_with(is_letter) && name.chars().all(is_plain)
}

/// Returns true for a name in brackets: `<token>`, `[your key]`, `{api_key}`, `%TOKEN%`.
fn is_bracketed(word: &str) -> bool {
    let brackets = [('<', '>'), ('[', ']'), ('{', '}'), ('%', '%')];
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_- .".contains(letter);
    brackets.iter().any(|(open, close)| {
        let inner = word.strip_prefix(*open);
        let inner = inner.and_then(|inner| inner.strip_suffix(*close));
        inner.is_some_and(|inner| {
            inner.starts_with(|letter: char| letter.is_ascii_alphabetic())
                && inner.chars().all(is_plain)
        })
    })
}

fn is_placeholder(word: &str) -> bool {
    /// Parts of words, without their separators and in small letters.
    const PARTS: [&str; 24] = [
        "yourapikey",
        "yourkey",
        "yourtoken",
        "yoursecret",
        "yourpass",
        "youraccess",
        "changeme",
        "changethis",
        "changeit",
        "replaceme",
        "replacethis",
        "replacewith",
        "insertkey",
        "inserttoken",
        "insertyour",
        "enteryour",
        "pasteyour",
        "putyour",
        "keyhere",
        "tokenhere",
        "secrethere",
        "passwordhere",
        "goeshere",
        "fillmein",
    ];
    /// Whole words.
    const WORDS: [&str; 8] = [
        "todo",
        "tbd",
        "fixme",
        "placeholder",
        "redacted",
        "undefined",
        "null",
        "xxx",
    ];
    let lower = word.to_ascii_lowercase();
    let plain = folded(word);
    is_bracketed(word)
        || word.contains('…')
        || word.contains("****")
        || plain.contains("xxxx")
        || lower.starts_with("your-")
        || lower.starts_with("your_")
        || WORDS.contains(&plain.as_str())
        || PARTS.iter().any(|part| plain.contains(part))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    #[test]
    fn edge_7_a_secret_that_was_hardly_meant_is_known() {
        use OddSecret::{Placeholder, Quotes, Variable};
        for (odd, is) in [
            ("YOUR_API_KEY", Placeholder),
            ("your-key-here", Placeholder),
            ("sk-your-key", Placeholder),
            ("sk-xxxxxxxxxxxxxxxx", Placeholder),
            ("xxx", Placeholder),
            ("...", Placeholder),
            ("TODO", Placeholder),
            ("Bearer <token>", Placeholder),
            ("[Your Key]", Placeholder),
            ("{api_key}", Placeholder),
            ("%API_KEY%", Placeholder),
            ("changeme-changeme", Placeholder),
            ("http://me:changeme@proxy:3128", Placeholder),
            ("api-key=<key>,tenant=7", Placeholder),
            ("${OPENAI_API_KEY}", Variable),
            ("Bearer $OPENAI_API_KEY", Variable),
            ("{{ .Values.token }}", Variable),
            ("\"0123456789abcdef\"", Quotes),
        ] {
            assert_eq!(of_text(odd), Some(is), "{odd}");
        }
        for good in [
            "sk-abcdefabcdefabc",
            "a-token-of-my-own",
            "Bearer abc",
            "$1{",
            "correct$horse-battery",
            "dGhlIHNlY3JldA==",
            "{\"type\": \"service_account\"}",
            "-----BEGIN PRIVATE KEY-----",
            "*/*",
            "http://me:s3cret@proxy:3128",
            "",
        ] {
            assert_eq!(of_text(good), None, "{good}");
        }
    }

    #[test]
    fn edge_7_a_placeholder_of_any_secret_is_told_and_not_shown() {
        let odd = "changeme-changeme";
        let server = "[dependencies.kg]\nkind = \"mcp_http\"\nurl = \"http://127.0.0.1:1\"\n";
        let web = "[dependencies.web]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n";
        let model = "[dependencies.gpt]\nkind = \"model\"\napi = \"openai\"\nurl = \"https://a\"\n";
        let process = "[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"kg\"\n";
        let mut cases = vec![
            (format!("[admin]\ntoken = \"{odd}\"\n"), "admin.token"),
            (
                format!("[gateway.auth]\ntokens = [\"{odd}\"]\n"),
                "gateway.auth.tokens",
            ),
            (
                format!("{server}auth = {{ tokens = [\"{odd}\"] }}\n"),
                "dependencies.kg.auth.tokens",
            ),
            (
                format!("{server}headers = {{ x-a = \"{odd}\" }}\n"),
                "dependencies.kg.headers.x-a",
            ),
            (
                format!("{web}headers = {{ x-a = \"{odd}\" }}\n"),
                "dependencies.web.headers.x-a",
            ),
            (
                format!("{web}proxy = \"http://me:{odd}@proxy\"\n"),
                "dependencies.web.proxy",
            ),
            (format!("{model}key = \"{odd}\"\n"), "dependencies.gpt.key"),
            (
                format!("{process}env = {{ A = \"{odd}\" }}\n"),
                "dependencies.kg.env.A",
            ),
            (
                format!("{process}args = [\"--token\", \"{odd}\"]\n"),
                "dependencies.kg.args",
            ),
        ];
        if cfg!(feature = "otel") {
            let text = format!("[otel]\nendpoint = \"http://a\"\nheaders = \"api-key={odd}\"\n");
            cases.push((text, "otel.headers"));
        }
        if cfg!(feature = "fleet") {
            let text = format!("[fleet]\nservers = [\"nats://a\"]\ntoken = \"{odd}\"\n");
            cases.push((text, "fleet.token"));
        }
        for (text, key) in cases {
            let settings = Settings::loader().bare().toml(&text).load();
            let settings = settings.unwrap_or_else(|error| panic!("{error}"));
            let all = settings.warnings().iter();
            let told = all.filter(|one| one.key == key && one.text.contains("placeholder"));
            assert_eq!(told.count(), 1, "{key}: {:?}", settings.warnings());
            assert!(
                !format!("{settings:?}").contains(odd) || key.ends_with("args"),
                "{key}"
            );
        }
    }
}
