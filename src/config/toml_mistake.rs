//! Words for text that is not TOML: the first mistake with its line, its column and the line itself.
//!
//! A value is shown only under a known key that holds no secret.

use breakerbox_actors::printable;

use super::known_keys::KnownKeys;
use super::masking::{is_sensitive, looks_secret, without_credentials};
use super::problem::Problem;
use super::toml_lines::{NamedPlace, header, joined, keys_of_line, named_places, plain};

/// Sections and keys of which no value is shown.
const HIDDEN: [&str; 9] = [
    "args", "auth", "body", "command", "env", "headers", "jwt", "proxy", "tokens",
];
/// Maximum length of a line that is shown, in characters.
const MAX_SHOWN: usize = 160;

/// Describes the first mistake of a text. `name`: of the file.
pub(super) fn problem(name: &str, text: &str, errors: &[toml::de::Error]) -> Problem {
    // One mistake often makes several errors; the first one is its place.
    let first = errors
        .iter()
        .min_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
    let (message, offset) = first.map_or(("it cannot be read", 0), |error| {
        (error.message(), error.span().map_or(0, |span| span.start))
    });
    let place = TextPlace::of(text, offset);
    let origin = format!("{name}:{}:{}", place.line, place.column);
    if let Some(format) = foreign_format(text) {
        let reason = format!("this is {format}, and the configuration is TOML");
        let allowed = "TOML, such as [dependencies.web] with kind = \"http\" in the line below it";
        return Problem::of_layer(reason, allowed, &origin);
    }
    let line = text.lines().nth(place.line - 1).unwrap_or_default();
    let message = match duplicate(message, text, &place) {
        Some(duplicate) => duplicate,
        None if line.contains(':') && !line.contains('=') && !line.trim().starts_with('[') => {
            "a key and its value have = between them, not a colon".to_owned()
        }
        None => match habit_of_others(line, message) {
            Some(words) => words.to_owned(),
            None => odd_character(line, place.column).unwrap_or_else(|| message.to_owned()),
        },
    };
    let reason = format!("line {}, column {}: {message}", place.line, place.column);
    let mut problem = Problem::of_layer(reason, "TOML", &origin);
    problem.excerpt = Some(excerpt(text, &place));
    problem
}

/// Recognizes what other formats allow in a line, and TOML does not.
fn habit_of_others(line: &str, message: &str) -> Option<&'static str> {
    let begins = |marks: &[&str]| marks.iter().any(|mark| line.trim_start().starts_with(mark));
    if begins(&["//", ";", "--", "/*"]) {
        return Some("a comment begins with #");
    }
    if line.contains(['\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}']) {
        return Some("these quotes are those of printed text, and TOML takes \" alone");
    }
    // As in JSON, YAML and Python.
    let value = line.split_once('=').map(|(_, value)| value);
    let value = value.and_then(|value| value.split('#').next());
    let value = value.map(str::trim).unwrap_or_default();
    match value.to_ascii_lowercase().as_str() {
        "null" | "nil" | "none" | "~" => {
            return Some("TOML has no such value: leave the key out, and its default holds");
        }
        lower @ ("true" | "false") if lower != value => {
            return Some("true and false are written in small letters");
        }
        _ => {}
    }
    let is_escape = message.contains("unicode") || message.contains("escape");
    (is_escape && line.contains('\\'))
        .then_some("a backslash is written twice in a text, or the text stands in 'single quotes'")
}

/// Names a character that looks like a blank, or like nothing, at a place or right behind the word there.
fn odd_character(line: &str, column: usize) -> Option<String> {
    let mut rest = line.chars().skip(column.saturating_sub(1));
    let is_odd = |letter: &char| {
        let is_blank = letter.is_whitespace() && !" \t\r".contains(*letter);
        is_blank || letter.is_control() && !"\t\r".contains(*letter) || *letter == '\u{200b}'
    };
    let odd = rest.find(|letter| is_odd(letter) || " \t=\"".contains(*letter));
    odd.filter(is_odd).map(|letter| {
        let number = u32::from(letter);
        format!("the character U+{number:04X} cannot be seen and is no plain blank: take it out")
    })
}

/// A place in a text.
struct TextPlace {
    /// Number of the line, from 1.
    line: usize,
    /// Number of the character in its line, from 1.
    column: usize,
}

impl TextPlace {
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset.min(text.len())).unwrap_or(text);
        let begin = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: 1 + before.matches('\n').count(),
            column: 1 + before[begin..].chars().count(),
        }
    }
}

/// Returns the name of another format, if the text is in it. Its first line says so, after its comments.
fn foreign_format(text: &str) -> Option<&'static str> {
    let is_comment = |line: &&str| {
        let mut marks = ["#", "//", "/*", "*"].into_iter();
        line.is_empty() || marks.any(|mark| line.starts_with(mark))
    };
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let first = lines.find(|line| !is_comment(line))?;
    let inner = first.strip_prefix('[').map(str::trim_start);
    if first.starts_with('{')
        || inner.is_some_and(|inner| inner.is_empty() || inner.starts_with('{'))
    {
        return Some("JSON");
    }
    if first == "---" || first.starts_with("--- ") || first.starts_with('%') {
        return Some("YAML");
    }
    // An entry of a list.
    if first == "-" || first.starts_with("- ") {
        return Some("YAML");
    }
    let (name, rest) = first.split_once(':')?;
    let bare = name.trim_matches(['"', '\'']);
    let is_name = |letter: char| letter.is_alphanumeric() || "_-.".contains(letter);
    let is_value = rest.is_empty() || rest.starts_with(' ');
    if bare.is_empty() || !bare.chars().all(is_name) || !is_value || rest.contains('=') {
        return None;
    }
    let is_json = name.starts_with('"') && rest.ends_with(['{', '[', ',']);
    Some(if is_json { "JSON" } else { "YAML" })
}

/// Names the table or key that a text has twice, and its first place.
fn duplicate(message: &str, text: &str, place: &TextPlace) -> Option<String> {
    if !message.contains("duplicate") && !message.contains("cannot extend") {
        return None;
    }
    let all = named_places(text);
    let is_here = |one: &&NamedPlace| one.line == place.line && one.column <= place.column;
    let own = all.iter().rfind(is_here)?;
    let path = &own.path;
    let is_before = |one: &NamedPlace| (one.line, one.column) < (own.line, own.column);
    let before: Vec<&NamedPlace> = all.iter().filter(|one| is_before(one)).collect();
    let is_within = |one: &str, other: &str| {
        let rest = one.strip_prefix(other);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    if let Some(first) = before.iter().find(|one| one.path == *path) {
        let column = match first.line == own.line {
            true => format!(", column {}", first.column),
            false => String::new(),
        };
        let line = first.line;
        return Some(format!(
            "{path} is there twice, first at line {line}{column}"
        ));
    }
    // A key with dots makes its tables, and a value is no table that others could add to.
    let mut keys = before.iter().filter(|one| !one.is_header);
    if let Some(first) = keys.clone().find(|one| is_within(&one.path, path)) {
        let (line, key) = (first.line, &first.path);
        return Some(format!(
            "{path} is there already: line {line} sets {key} in it"
        ));
    }
    if let Some(first) = keys.find(|one| is_within(path, &one.path)) {
        let (line, key) = (first.line, &first.path);
        return Some(format!(
            "{path} is added to {key}, which line {line} has set already as a whole"
        ));
    }
    // A table with a header of its own takes no keys from elsewhere.
    let headers = before.iter().filter(|one| one.is_header);
    let around = headers.filter(|one| is_within(path, &one.path));
    if let Some(first) = around.max_by_key(|one| one.path.len()) {
        let (line, key) = (first.line, &first.path);
        return Some(format!(
            "{path} is added to {key}, which line {line} has begun already: it belongs there"
        ));
    }
    Some(format!("{message} in {path}"))
}

/// Returns the line of a mistake, and below it a mark at its column.
fn excerpt(text: &str, place: &TextPlace) -> String {
    let raw = text.lines().nth(place.line - 1).unwrap_or_default();
    let section = text.lines().take(place.line - 1).filter_map(|line| {
        // Within an array there are lines of this form too; they name no table that is known.
        header(line.trim())
    });
    let section = section.last().unwrap_or_default();
    let shown = shown_line(raw, &section);
    let number = place.line.to_string();
    let mut excerpt = format!("{number} | {}", printable(&shown));
    if shown == raw && place.column <= raw.chars().count() + 1 {
        let margin = " ".repeat(number.len());
        let before = " ".repeat(place.column - 1);
        excerpt.push_str(&format!("\n{margin} | {before}^"));
    }
    excerpt
}

/// Returns a line without what may be a secret.
fn shown_line(line: &str, section: &str) -> String {
    const MASK: &str = super::masking::MASK;
    let line = match line.char_indices().nth(MAX_SHOWN) {
        Some((at, _)) => &line[..at],
        None => line,
    };
    if line.trim_start().starts_with('[') && header(line.trim()).is_some() {
        return line.split('#').next().unwrap_or_default().to_owned();
    }
    let Some(at) = line.find(['=', ':']) else {
        // A part of a list, or a name alone.
        let word = line.trim();
        let is_known = KnownKeys::new().has_name(word);
        return if is_known {
            line.to_owned()
        } else {
            MASK.to_owned()
        };
    };
    let (name, value) = line.split_at(at);
    // The keys of a table in the line are names too.
    let keys = keys_of_line(line);
    let are_open = keys.iter().all(|(_, key)| is_open(section, key));
    if is_open(section, name) && are_open && !holds_token(value) {
        let value = without_credentials(value);
        return format!("{name}{value}");
    }
    // SEC-1: the end of a key in base64 looks like a name without a value.
    let is_padding = value.trim_end().bytes().all(|byte| byte == b'=');
    if is_padding && !KnownKeys::new().has_name(&plain(name)) {
        return MASK.to_owned();
    }
    format!("{name}{} {MASK}", &value[..1])
}

/// Returns true if the values of a key are shown.
fn is_open(section: &str, name: &str) -> bool {
    let path = joined(section, &plain(name));
    let last = path.rsplit('.').next().unwrap_or_default();
    let is_hidden = path.split('.').any(|part| HIDDEN.contains(&part));
    !is_hidden && !is_sensitive(last) && KnownKeys::new().has_name(last)
}

fn holds_token(value: &str) -> bool {
    let separates = |letter: char| letter.is_whitespace() || "\"',={}".contains(letter);
    let mut words = value.split(separates);
    words.any(|word| !word.is_empty() && looks_secret(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let (_, errors) = toml::de::DeTable::parse_recoverable(text);
        assert!(!errors.is_empty(), "{text}");
        problem("default.toml", text, &errors).to_string()
    }

    #[test]
    fn cfg_1_a_mistake_of_toml_is_shown_with_its_line_and_column() {
        let text = "[dependencies.web]\nkind = \"http\nurl = \"http://127.0.0.1:1\"\n";
        let said = said(text);
        assert!(said.starts_with("line 2, column "), "{said}");
        assert!(said.contains("(default.toml:2:"), "{said}");
        assert!(said.contains("\n    2 | kind = \"http\n"), "{said}");
        assert!(said.ends_with('^'), "{said}");
        assert_eq!(said.lines().count(), 3, "one mistake, one message: {said}");
    }

    #[test]
    fn cfg_1_values_of_others_and_characters_that_cannot_be_seen_are_named() {
        let line = |line: &str| said(&format!("[dependencies.web]\n{line}\n"));
        for (given, words) in [
            ("timeout.attempt = null", "leave the key out"),
            ("timeout.attempt = None # later", "leave the key out"),
            ("fallback_only = True", "in small letters"),
            (
                "kind\u{a0}= \"http\"",
                "the character U+00A0 cannot be seen",
            ),
            ("\0", "the character U+0000 cannot be seen"),
            ("kind = http", "quote"),
        ] {
            assert!(line(given).contains(words), "{given:?}: {}", line(given));
        }
    }

    #[test]
    fn cfg_1_a_duplicate_is_named_with_its_first_place() {
        let section = "[dependencies.web]\nkind = \"http\"\n";
        let twice = said(&format!("{section}{section}"));
        assert!(
            twice.contains("dependencies.web is there twice, first at line 1"),
            "{twice}"
        );
        let key = said(&format!("{section}url = \"http://a\"\nkind = \"http\"\n"));
        assert!(
            key.contains("dependencies.web.kind is there twice, first at line 2"),
            "{key}"
        );
    }

    #[test]
    fn cfg_1_ops_a_a_duplicate_in_a_table_of_one_line_is_named_and_shown() {
        let section = "[dependencies.web]\nkind = \"http\"\n";
        let line = "timeout = { attempt = \"1s\", attempt = \"2s\" }";
        let inline = said(&format!("{section}{line}\n"));
        let first = "dependencies.web.timeout.attempt is there twice, first at line 3, column 13";
        assert!(inline.contains(first), "{inline}");
        assert!(inline.contains(&format!("3 | {line}")), "{inline}");
        let dotted = said(&format!(
            "{section}timeout.attempt = \"1s\"\n[dependencies.web.timeout]\ntotal = \"2s\"\n"
        ));
        let first = "dependencies.web.timeout is there already: line 3 sets \
                     dependencies.web.timeout.attempt in it";
        assert!(dotted.contains(first), "{dotted}");
        let whole = said(&format!(
            "{section}timeout = {{ attempt = \"1s\" }}\ntimeout.total = \"2s\"\n"
        ));
        let first = "dependencies.web.timeout.total is added to dependencies.web.timeout, which \
                     line 3 has set already";
        assert!(whole.contains(first), "{whole}");
        // The tables of a list may have equal keys; within one they may not.
        let fallback = "[[dependencies.web.fallback]]\nkind = \"fixed\"\n";
        let list = said(&format!("{section}{fallback}{fallback}kind = \"fixed\"\n"));
        let first = "dependencies.web.fallback[1].kind is there twice, first at line 6";
        assert!(list.contains(first), "{list}");
    }

    #[test]
    fn cfg_1_ops_a_a_list_beside_a_table_of_its_name_is_named_with_the_first_place() {
        let section = "[dependencies.web]\nkind = \"http\"\n";
        let tables = "[[dependencies.web.fallback]]\nkind = \"fixed\"\n";
        for (text, expected) in [
            (
                format!("{section}[[dependencies.web]]\n"),
                "dependencies.web is there twice, first at line 1",
            ),
            (
                format!("{section}{tables}[dependencies.web.fallback]\n"),
                "dependencies.web.fallback is there twice, first at line 3",
            ),
            (
                format!("{section}fallback = [{{ kind = \"fixed\" }}]\n{tables}"),
                "dependencies.web.fallback is there twice, first at line 3",
            ),
            (
                format!(
                    "{section}[dependencies.web.timeout]\n[dependencies]\nweb.timeout.total = 1\n"
                ),
                "added to dependencies.web.timeout, which line 3 has begun already",
            ),
        ] {
            let told = said(&text);
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn cfg_1_habits_of_other_formats_are_recognized() {
        for (text, expected) in [
            ("// ours\n[gateway]\n", "a comment begins with #"),
            ("; ours\n[gateway]\n", "a comment begins with #"),
            (
                "[dependencies.a]\nkind = \u{201c}http\u{201d}\n",
                "TOML takes \" alone",
            ),
            (
                "[dependencies.a]\ncwd = \"C:\\users\\me\"\n",
                "a backslash is written twice",
            ),
        ] {
            let said = said(text);
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn cfg_1_another_format_is_recognized() {
        let json = [
            "{\"dependencies\": {}}",
            "  {\n}",
            "[{\"name\": \"a\"}]\n",
            "[\n1\n]\n",
            "// ours\n{ \"dependencies\": {} }\n",
            "\"dependencies\": {\n}\n",
        ];
        for text in json {
            assert!(said(text).contains("this is JSON"), "{text}");
        }
        let yaml = [
            "dependencies:\n  web:\n    kind: http\n",
            "# ours\n---\ngateway:\n",
            "admin: { bind: 1 }\n",
            "- name: a\n  url: b\n",
            "- weather\n- news\n",
            "%YAML 1.2\n---\na: b\n",
            "\"gateway\":\n  \"bind\": \"127.0.0.1:0\"\n",
        ];
        for text in yaml {
            assert!(said(text).contains("this is YAML"), "{text}");
        }
        assert!(!said("[gateway]\nbind: \"127.0.0.1:1\"\n").contains("YAML"));
    }

    #[test]
    fn edge_7_no_secret_is_shown_beside_a_mistake() {
        let lines = [
            "token = \"hunter2",
            "[dependencies.a.env]\nWORD = \"hunter2",
            "[dependencies.a]\nheaders = { x = \"hunter2",
            "[dependencies.a]\nargs = [\n\"hunter2,\n]",
            "[dependencies.a]\nurl = \"http://me:hunter2@host",
            "[dependencies.a]\ncommand = \"run hunter2",
            "[dependencies.a]\npassword: hunter2",
            "hunter2",
            "kind = \"sk-hunter2",
            "[dependencies.a]\ntimeout = { word = \"hunter2",
            "[dependencies.a]\ntimeout = { \"hunter2",
            "[dependencies.a]\ntimeout = { token = \"hunter2\", attempt = }",
            "[dependencies.a]\ntls.key =\nhunter2==\n",
            "[dependencies.a]\nhunter2==\n",
        ];
        for text in lines {
            let said = said(text);
            assert!(!said.contains("hunter2"), "{text}: {said}");
        }
    }
}
