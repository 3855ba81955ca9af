//! Given values as they are shown, without secrets.
//!
//! A value of a known key is shown as it was given, but for credentials in addresses and in the
//! arguments of programs. A value under a key that is not known is masked: it may be a secret with
//! a misspelt name.

use breakerbox_actors::printable;
use config::{Value, ValueKind};

use super::secret_names::is_secret_name;

/// Shown in place of a secret.
pub(super) const MASK: &str = "***";

/// Words in the names of secrets, beside those of credentials. A name is compared without its
/// separators.
const SENSITIVE: [&str; 21] = [
    "token",
    "secret",
    "pass",
    "pwd",
    "key",
    "auth",
    "cred",
    "bearer",
    "cookie",
    "session",
    "signature",
    "dsn",
    "connectionstring",
    "connstr",
    "webhook",
    "header",
    "private",
    "jwt",
    "otp",
    "mnemonic",
    "user",
];
/// Options of one letter that take no secret; what follows any other one is masked.
const HARMLESS: &[u8] = b"ymvqidlrs";
/// Begins of well-known kinds of tokens.
const TOKENS: [&str; 13] = [
    "sk-",
    "sk_",
    "pk_",
    "rk_",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xox",
    "AKIA",
    "AIza",
    "eyJ",
];

/// Returns true if a value with this name might be a secret.
pub(crate) fn is_sensitive(name: &str) -> bool {
    let plain = name.chars().filter(|letter| letter.is_alphanumeric());
    let plain: String = plain.flat_map(char::to_lowercase).collect();
    // Of a key only its end: a dependency may be called a ticket.
    let last = name.rsplit('.').next().unwrap_or_default();
    SENSITIVE.iter().any(|word| plain.contains(word)) || is_secret_name(last)
}

/// Formats a given value approximately as written, without credentials.
pub(super) fn show(value: &Value) -> String {
    match &value.kind {
        // SEC-1: a secret may stand where another value belongs, such as the path of its file.
        ValueKind::String(text) if is_key_content(text) => MASK.to_owned(),
        ValueKind::String(text) => quoted(&without_credentials(text)),
        ValueKind::Array(values) => list(values.iter().map(show)),
        // Its keys were not expected here, so they are not known.
        ValueKind::Table(table) => {
            let mut entries: Vec<String> = table
                .keys()
                .map(|key| format!("{} = {MASK}", printable(key)))
                .collect();
            entries.sort();
            format!("{{ {} }}", entries.join(", "))
        }
        ValueKind::Nil => "nothing".to_owned(),
        // Its figures written out would fill the screen.
        ValueKind::Float(number) if number.abs() >= 1e17 => format!("{number:e}"),
        // It is no whole number where one is asked for.
        ValueKind::Float(number) if number.fract() == 0.0 => format!("{number:.1}"),
        _ => value.to_string(),
    }
}

/// Formats the body of an answer, which callers see anyway: it may have several lines, and be JSON.
pub(super) fn show_body(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) if !is_key(text) => quoted(&without_credentials(text)),
        _ => show(value),
    }
}

/// Formats the value of an unknown key: figures that were most likely meant for a known key are
/// shown, everything else is masked.
pub(super) fn show_unknown(key: &str, near: Option<&str>, value: &Value) -> String {
    let is_figure = matches!(
        value.kind,
        ValueKind::Boolean(_) | ValueKind::I64(_) | ValueKind::Float(_)
    );
    let is_open = near.is_some_and(|near| !is_sensitive(near)) && !is_sensitive(key);
    if is_figure && is_open {
        return show(value);
    }
    MASK.to_owned()
}

/// Formats the arguments of a program, without the values that may be secrets.
pub(super) fn show_arguments(value: &Value) -> String {
    match &value.kind {
        ValueKind::Array(values) => {
            let texts = values.iter().map(|value| match &value.kind {
                ValueKind::String(text) => text.clone(),
                other => other.to_string(),
            });
            let texts: Vec<String> = texts.collect();
            list(masked(&texts).into_iter().map(|text| quoted(&text)))
        }
        ValueKind::String(line) => {
            // A list in a variable is separated by commas, a command line by spaces.
            let separator = if line.contains(',') { ',' } else { ' ' };
            let texts: Vec<String> = line.split(separator).map(str::to_owned).collect();
            quoted(&masked(&texts).join(&separator.to_string()))
        }
        _ => MASK.to_owned(),
    }
}

fn list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// Masks arguments: those after the name of a secret, and those that look like one.
fn masked(arguments: &[String]) -> Vec<String> {
    let mut takes_secret = false;
    let arguments = arguments.iter().map(|argument| {
        let text = argument.trim();
        let hidden = takes_secret && !text.is_empty();
        takes_secret = names_secret(text);
        if hidden { MASK.to_owned() } else { one(text) }
    });
    arguments.collect()
}

/// Returns true if the argument after this one may be a secret.
fn names_secret(argument: &str) -> bool {
    let scheme = ["bearer", "basic"];
    if scheme
        .iter()
        .any(|word| argument.eq_ignore_ascii_case(word))
    {
        return true;
    }
    let Some(name) = argument.strip_prefix('-') else {
        return argument.ends_with(':') && is_sensitive(argument);
    };
    if argument.contains('=') || attached(argument).is_some() {
        return false;
    }
    match name.as_bytes() {
        [] => false,
        [letter] => !HARMLESS.contains(letter),
        _ => is_sensitive(name),
    }
}

/// Returns the option of one letter to which a value is attached that may be a secret, as in
/// `-pSECRET`.
fn attached(argument: &str) -> Option<&str> {
    const WORDS: [&str; 14] = [
        "plugin", "poll", "port", "prefix", "pretty", "print", "priority", "process", "profile",
        "project", "protocol", "provider", "path", "package",
    ];
    let name = argument.strip_prefix('-')?;
    let letter = name.bytes().next().filter(u8::is_ascii_alphabetic)?;
    let value = &name[1..];
    if value.is_empty() || HARMLESS.contains(&letter) {
        return None;
    }
    let word = name.split('=').next().unwrap_or(name);
    // Some programs have long options with one dash; a password may be a word too.
    let is_word = word
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let is_option = match letter {
        b'p' => WORDS.contains(&word) || word.starts_with("pass"),
        _ => is_word,
    };
    (!is_option).then(|| &argument[..2])
}

/// Masks one argument: the value in `NAME=value` and `Name: value`, credentials of an address, and
/// texts that look like a token.
fn one(argument: &str) -> String {
    // JSON may hold any name, at any depth.
    if argument.starts_with(['{', '"']) {
        return MASK.to_owned();
    }
    if let Some(option) = attached(argument) {
        return format!("{option}{MASK}");
    }
    let split = argument.find(['=', ':']).filter(|at| {
        // The colon of an address is none.
        !argument[*at..].starts_with("://")
    });
    if let Some(at) = split {
        let (name, value) = argument.split_at(at);
        let is_variable = !name.is_empty()
            && value.starts_with('=')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        if is_variable || is_sensitive(name) {
            return format!("{name}{}{MASK}", &value[..1]);
        }
        if value.starts_with('=') && looks_secret(&value[1..]) {
            return format!("{name}={MASK}");
        }
    }
    if looks_secret(argument) {
        return MASK.to_owned();
    }
    without_credentials(argument)
}

/// Returns true for well-known kinds of tokens, JSON, and long texts of letters mixed with digits.
pub(crate) fn looks_secret(text: &str) -> bool {
    if TOKENS.iter().any(|begin| text.starts_with(begin)) || text.starts_with(['{', '"']) {
        return true;
    }
    let words = text.split_whitespace();
    let is_scheme =
        |word: &str| word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
    if words.clone().any(is_scheme) {
        return true;
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+=".contains(&byte);
    let count = |is: fn(&u8) -> bool| text.bytes().filter(is).count();
    text.len() >= 20
        && text.bytes().all(is_plain)
        && count(u8::is_ascii_digit) >= 3
        && count(u8::is_ascii_alphabetic) >= 3
}

/// Returns true for a text that is most likely a key, or the contents of a file with one, in place of
/// any other value: none of these has several lines, or is JSON.
pub(super) fn is_key_content(text: &str) -> bool {
    let text = text.trim();
    text.contains(['\n', '\r']) || text.starts_with('{') || is_key(text)
}

/// Returns a sentence without the keys that a given value has brought into it.
pub(super) fn without_keys(text: &str) -> String {
    if let Some(at) = text.find("-----BEGIN") {
        return format!("{}{MASK}", &text[..at]);
    }
    let marks = |letter: char| "\"'`,;:?()[]".contains(letter);
    let words = text
        .split(' ')
        .map(|word| match is_key(word.trim_matches(marks)) {
            true => MASK,
            false => word,
        });
    words.collect::<Vec<_>>().join(" ")
}

/// Returns true for PEM, a well-known kind of token, and a long stretch of base64 or hexadecimal digits.
fn is_key(text: &str) -> bool {
    /// Names of models and of machines are shorter, or have hyphens.
    const LONG: usize = 24;
    const LONG_HEX: usize = 32;
    let text = text.trim();
    let is_token = text.len() >= 20 && TOKENS.iter().any(|begin| text.starts_with(begin));
    let mut words = text.split_whitespace();
    let is_scheme =
        |word: &str| word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
    let is_header = words.next().is_some_and(is_scheme)
        && words.next().is_some_and(|key| key.len() >= 6)
        && words.next().is_none();
    let is_of_it = |letter: char| letter.is_ascii_alphanumeric() || letter == '+';
    let mut stretches = text.split(|letter| !is_of_it(letter));
    let is_stretch = stretches.any(|part| {
        let count = |is: fn(&u8) -> bool| part.bytes().filter(is).count();
        let (digits, letters) = (count(u8::is_ascii_digit), count(u8::is_ascii_alphabetic));
        let is_mixed = count(u8::is_ascii_uppercase) > 0 && count(u8::is_ascii_lowercase) > 0;
        let is_hex = part.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits >= 2
            && letters >= 3
            && (part.len() >= LONG && is_mixed || part.len() >= LONG_HEX && is_hex)
    });
    text.contains("-----BEGIN") || is_token || is_header || is_stretch
}

/// Masks the parts of an address that may be secret: the user, the query and the fragment.
pub(super) fn without_credentials(text: &str) -> String {
    let (begin, rest) = match text.find("://") {
        Some(at) => text.split_at(at + "://".len()),
        None => match text.strip_prefix("//") {
            Some(rest) => ("//", rest),
            // `user:password@host`, but not `@scope/name`.
            None if text.find(':').is_some_and(|at| text[at..].contains('@')) => ("", text),
            None => return text.to_owned(),
        },
    };
    // Also across characters that no address has: a password may hold any of them.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    match rest.find(['?', '#']) {
        Some(at) => format!("{begin}{user}{}{MASK}", &rest[..=at]),
        None => format!("{begin}{user}{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    #[test]
    fn sec_1_a_text_that_looks_like_a_key_is_not_shown_for_any_key() {
        for text in [
            "-----BEGIN PRIVATE KEY-----\nMIIEvHUNTER2\n-----END PRIVATE KEY-----\n",
            "-----BEGIN NATS USER JWT-----",
            "one line\nanother line",
            "{\"private_key\": \"hunter2\"}",
            "Bearer hunter2",
            "ghp_16C7e42F292c6912E7aa",
            "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj",
            "https://hooks.example/T000/B000/aB3dE6gH9jK2mN5pQ8sT1vW4",
            "0123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(show(&Value::new(None, text)), MASK, "{text}");
        }
        for text in [
            "secrets/own.pem",
            "/run/secrets/BreakerboxProductionGatewayServer/tls.key",
            "claude-3-5-sonnet-20241022",
            "anthropic.claude-sonnet-4-20250514-v1:0",
            "basic checks of the new release",
            "http://127.0.0.1:19101/api",
            "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        ] {
            assert_eq!(show(&Value::new(None, text)), format!("{text:?}"));
        }
        assert_eq!(
            without_keys("there is no dependency \"ghp_16C7e42F292c6912E7aa\", did you mean a?"),
            "there is no dependency *** did you mean a?"
        );
        let plain = "it needs kind = \"fixed\": see https://example.org/docs";
        assert_eq!(without_keys(plain), plain);
        let body = Value::new(None, "{\"items\": []}\n");
        assert_eq!(show_body(&body), "\"{\\\"items\\\": []}\\n\"");
    }

    #[test]
    fn edge_2_e2e_names_of_credentials_are_sensitive_everywhere() {
        for name in ["GITHUB_PAT", "x-mfa", "headers.x-pat", "login_passcode"] {
            assert!(is_sensitive(name), "{name}");
        }
        for name in [
            "NODE_PATH",
            "SSL_CERT_FILE",
            "dependencies.ticket.url",
            "UID",
        ] {
            assert!(!is_sensitive(name), "{name}");
        }
    }

    #[test]
    fn edge_7_no_secret_of_a_command_line_is_shown() {
        let cases: [(&[&str], &str); 16] = [
            (
                &["-pSECRET", "-phunter2", "-uroot:hunter2"],
                r#"["-p***", "-p***", "-u***"]"#,
            ),
            (
                &["-port", "8080", "-transport=stdio", "-la", "-v2"],
                r#"["-port", "8080", "-transport=stdio", "-la", "-v2"]"#,
            ),
            (
                &["-y", "@modelcontextprotocol/server-memory@1.0"],
                r#"["-y", "@modelcontextprotocol/server-memory@1.0"]"#,
            ),
            (&["--token", "hunter2"], r#"["--token", "***"]"#),
            (&["--token", "--hunter2"], r#"["--token", "***"]"#),
            (&["--api-key=hunter2"], r#"["--api-key=***"]"#),
            (
                &["--API_KEY", "hunter2", "run"],
                r#"["--API_KEY", "***", "run"]"#,
            ),
            (&["-p", "hunter2"], r#"["-p", "***"]"#),
            (&["-e", "NAME=hunter2"], r#"["-e", "***"]"#),
            (&["DB_URL=hunter2"], r#"["DB_URL=***"]"#),
            (&["-H", "Authorization: Bearer hunter2"], r#"["-H", "***"]"#),
            (&["Authorization: hunter2"], r#"["Authorization:***"]"#),
            (
                &["postgresql+asyncpg://me:hunter2@host/db?x=hunter2"],
                r#"["postgresql+asyncpg://***@host/db?***"]"#,
            ),
            (&["http://me:hun|ter2@host"], r#"["http://***@host"]"#),
            (
                &["--db=http://me:hunter2@host"],
                r#"["--db=http://***@host"]"#,
            ),
            (
                &["--port", "8080", "/data/memory.json"],
                r#"["--port", "8080", "/data/memory.json"]"#,
            ),
        ];
        for (arguments, shown) in cases {
            let values: Vec<Value> = arguments
                .iter()
                .map(|text| Value::new(None, *text))
                .collect();
            assert_eq!(show_arguments(&Value::new(None, values)), shown);
        }
        let line = Value::new(None, "--token,hunter2,--verbose");
        assert_eq!(show_arguments(&line), "\"--token,***,--verbose\"");
        let line = Value::new(None, "npx --token hunter2");
        assert_eq!(show_arguments(&line), "\"npx --token ***\"");
        for text in [
            "ghp_16C7e42F292c6912E7",
            "sk-hunter2",
            "{\"token\":\"hunter2\"}",
            "a1b2c3d4e5f6a7b8c9d0",
        ] {
            let value = Value::new(None, vec![Value::new(None, text)]);
            assert_eq!(show_arguments(&value), "[\"***\"]", "{text}");
        }
    }

    #[test]
    fn sec_1_a_key_in_place_of_the_path_of_its_file_is_refused_and_not_shown() {
        const WEB: &str = "[dependencies.web]\nkind = \"http\"\nurl = \"https://127.0.0.1:1\"\n";
        const MODEL: &str = "[dependencies.m]\nkind = \"model\"\napi = \"openai\"\n\
                             url = \"http://127.0.0.1:1\"\n";
        const PEM: &str = "-----BEGIN PRIVATE KEY-----\nHUNTER2\n-----END PRIVATE KEY-----\n";
        for (text, key, given) in [
            (WEB, "dependencies.web.tls.key", PEM),
            (
                WEB,
                "dependencies.web.credentials",
                "{\"private_key\": \"HUNTER2\"}",
            ),
            ("", "gateway.tls.key", PEM),
            (
                "",
                "gateway.auth.jwt.jwks_file",
                "{\"keys\": [\"HUNTER2\"]}",
            ),
            ("", "fleet.credentials", PEM),
            ("", "admin.state", PEM),
            ("", "recorder.path", PEM),
            (MODEL, "dependencies.m.key_header", "Bearer HUNTER2"),
            (
                WEB,
                "dependencies.web.url",
                "eyJhbGciOiJIUzI1NiJ9.HUNTER2.HUNTER2",
            ),
        ] {
            let loader = Settings::loader().bare().toml(text).flag(key, given);
            let error = loader.load().expect_err(key);
            let is_told = error.problems().iter().any(|one| one.key == key);
            assert!(is_told && !error.to_string().contains("HUNTER2"), "{error}");
        }
    }
}
