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
    let mut ours = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !is_ours(line) {
            continue;
        }
        let begin = ours.len();
        ours.push_str(line);
        // A value in quotes may continue over several lines.
        while is_open(&ours[begin..]) {
            let Some(next) = lines.next() else { break };
            ours.push('\n');
            ours.push_str(next);
        }
        ours.push('\n');
    }
    let mut content = DotEnvContent::default();
    for line in dotenvy::from_read_iter(ours.as_bytes()) {
        match line {
            Ok(variable) => content.variables.push(variable),
            Err(error) => {
                content.problems.push(bad_line(&error, text, place));
                break;
            }
        }
    }
    content
}

fn is_ours(line: &str) -> bool {
    let line = line.trim_start();
    let exported = line.strip_prefix("export").unwrap_or_default();
    line.starts_with(OURS)
        || exported.starts_with(char::is_whitespace) && exported.trim_start().starts_with(OURS)
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
fn bad_line(error: &dotenvy::Error, text: &str, file: &str) -> Problem {
    let allowed = "lines such as NAME=value";
    let dotenvy::Error::LineParse(line, column) = error else {
        return Problem::of_layer("a line cannot be read", allowed, file);
    };
    let reason = format!("a line cannot be read at column {column}");
    // A value may continue over several lines; its first line is reported.
    let begin = line.lines().next().unwrap_or_default();
    match text.lines().position(|line| line == begin) {
        Some(before) => Problem::of_layer(reason, allowed, &format!("{file}:{}", before + 1)),
        None => Problem::of_layer(reason, allowed, file),
    }
}
