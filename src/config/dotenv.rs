//! Reader of `.env`: only the lines that begin with `BREAKERBOX` are ours.
//!
//! The file often belongs to other programs too. Their lines are dropped unread, so none of them
//! can be wrong here. It never writes, and never follows what another user could have written.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::problem::{Problem, Warning};
use super::variable_names::OURS;

/// Maximum size of the file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Result of reading a `.env`.
#[derive(Debug, Default)]
pub(super) struct DotEnvContent {
    pub(super) variables: Vec<(String, String)>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
}

impl DotEnvContent {
    fn ignored(reason: impl Into<String>, place: &str) -> Self {
        let text = format!("it is ignored: {}", reason.into());
        let warning = Warning {
            key: String::new(),
            text,
            origin: place.to_owned(),
        };
        Self {
            warnings: vec![warning],
            ..Self::default()
        }
    }

    fn unreadable(reason: impl ToString, place: &str) -> Self {
        let problem = Problem::of_layer(reason, "a file that can be read", place);
        Self {
            problems: vec![problem],
            ..Self::default()
        }
    }
}

/// Reads the file. `named`: the program named it, so it must exist.
pub(super) fn read(path: &Path, named: bool) -> DotEnvContent {
    let place = path.display().to_string();
    // Before the file is opened: opening a pipe would wait for its writer.
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) if named => return DotEnvContent::unreadable("it is not a file", &place),
        // Other tools have folders of this name.
        Ok(_) => return DotEnvContent::ignored("it is not a file", &place),
        Err(error) if error.kind() == ErrorKind::NotFound && !named => {
            return DotEnvContent::default();
        }
        Err(error) => return DotEnvContent::unreadable(error, &place),
    }
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return DotEnvContent::unreadable(error, &place),
    };
    let mut bytes = Vec::new();
    let read = file.metadata().and_then(|found| {
        // EDGE-7: a file that another user owns or may write sets nothing.
        if let Some(reason) = foreign(&found) {
            return Ok(Some(reason));
        }
        let read = (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        let is_long = read as u64 > MAX_BYTES;
        Ok(is_long.then(|| format!("it is longer than {MAX_BYTES} bytes")))
    });
    match read {
        Ok(None) => parse(&String::from_utf8_lossy(&bytes), &place),
        Ok(Some(reason)) => DotEnvContent::ignored(reason, &place),
        Err(error) => DotEnvContent::unreadable(error, &place),
    }
}

/// Returns the reason why a file is not trusted: its owner, or the users that may write it.
#[cfg(unix)]
fn foreign(found: &Metadata) -> Option<String> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let us = nix::unistd::geteuid().as_raw();
    // The superuser can change everything anyway.
    if found.uid() != us && found.uid() != 0 {
        return Some("another user owns it, allowed: a file of the user that runs this".to_owned());
    }
    let mode = found.permissions().mode() & 0o777;
    (mode & 0o022 != 0).then(|| {
        format!("others than its owner may write it, its mode is {mode:03o}, allowed: 600")
    })
}

/// Other systems have no owner and mode of this kind.
#[cfg(not(unix))]
fn foreign(_: &Metadata) -> Option<String> {
    None
}

/// Reads our lines; all others are dropped.
pub(super) fn parse(text: &str, place: &str) -> DotEnvContent {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut content = DotEnvContent::default();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if !is_ours(line) {
            continue;
        }
        let mut entry = line.to_owned();
        // A value in quotes may continue over several lines.
        while is_open(&entry) {
            let Some((next, _)) = lines.next() else { break };
            entry.push('\n');
            entry.push_str(next);
        }
        // EDGE-7: nothing is put in for a `$`: it is a letter of a secret.
        let entry = without_substitution(&entry);
        for variable in dotenvy::from_read_iter(entry.as_bytes()) {
            match variable {
                Ok(variable) => content.variables.push(variable),
                Err(_) => content
                    .problems
                    .push(bad_line(&format!("{place}:{number}"))),
            }
        }
    }
    content
}

/// Returns an entry in which each `$` stands for itself.
fn without_substitution(entry: &str) -> String {
    let mut literal = String::with_capacity(entry.len());
    let (mut quote, mut is_escaped) = (None, false);
    for letter in entry.chars() {
        if letter == '$' && !is_escaped && quote != Some('\'') {
            literal.push('\\');
        }
        literal.push(letter);
        match quote {
            _ if is_escaped => is_escaped = false,
            None | Some('"') if letter == '\\' => is_escaped = true,
            None if letter == '"' || letter == '\'' => quote = Some(letter),
            Some(open) if letter == open => quote = None,
            _ => {}
        }
    }
    literal
}

fn is_ours(line: &str) -> bool {
    let line = line.trim_start();
    let exported = line.strip_prefix("export").unwrap_or_default();
    // In small letters it is a mistake that is told.
    let begins = |text: &str| {
        let begin = text.get(..OURS.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(OURS))
    };
    begins(line) || exported.starts_with(char::is_whitespace) && begins(exported.trim_start())
}

/// Returns true if a quote of this text is not closed.
fn is_open(text: &str) -> bool {
    let (mut quote, mut escaped, mut before) = (None, false, ' ');
    for letter in text.chars() {
        match quote {
            _ if escaped => escaped = false,
            None if letter == '#' && before.is_whitespace() => return false,
            Some('"') | None if letter == '\\' => escaped = true,
            None if letter == '"' || letter == '\'' => quote = Some(letter),
            Some(open) if letter == open => quote = None,
            _ => {}
        }
        before = letter;
    }
    quote.is_some()
}

/// Describes an invalid line of `.env`. The line is not shown: it may contain a secret.
fn bad_line(place: &str) -> Problem {
    let allowed = "lines such as NAME=value, and NAME='a value' with quotes around blanks";
    Problem::of_layer("a line cannot be read", allowed, place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_7_a_value_of_dotenv_is_taken_as_it_is() {
        for (given, value) in [
            ("correct$horse-battery", "correct$horse-battery"),
            ("${HOME}/x", "${HOME}/x"),
            ("\"a $b ${c}\"", "a $b ${c}"),
            ("'a $b'", "a $b"),
            ("a\\$b", "a$b"),
        ] {
            let content = parse(&format!("BREAKERBOX__ADMIN__TOKEN={given}\n"), ".env");
            let found: Vec<_> = content.variables.iter().map(|(_, value)| value).collect();
            assert_eq!(found, [value], "{given}");
        }
    }

    #[test]
    fn edge_7_a_line_of_dotenv_that_cannot_be_read_is_told_with_its_number() {
        let text = "# ours\nOTHER=a b c\nBREAKERBOX__A=Bearer sk-live\nbreakerbox__b=1\n";
        let content = parse(text, ".env");
        let told: Vec<_> = content.problems.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains(".env:3") && told[0].contains("quotes"),
            "{told:?}"
        );
        assert!(!told[0].contains("sk-live"), "{told:?}");
        // Another part warns of its letters.
        assert_eq!(
            content.variables,
            [("breakerbox__b".to_owned(), "1".to_owned())]
        );
    }
}
