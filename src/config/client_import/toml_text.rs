//! The text of one imported server.

use std::borrow::Cow;
use std::fmt::Write as _;

use breakerbox_actors::printable;
use serde_json::Value;

use super::server_entry::{GivenValue, NamedValue, ServerEntry, ServerPlace};

/// Writes the table of a server. One that cannot be started as it is stands in comments.
pub(super) fn write(entry: &ServerEntry, out: &mut String) {
    let mut text = String::new();
    table(entry, &mut text);
    // Writing into a string cannot fail.
    let _ = writeln!(out, "# {}", quoted(&entry.title));
    for line in &entry.obstacles {
        let _ = writeln!(out, "# Not active: {line}.");
    }
    for line in &entry.remarks {
        let _ = writeln!(out, "# {line}.");
    }
    for line in text.lines() {
        let mark = if entry.obstacles.is_empty() { "" } else { "# " };
        let _ = writeln!(out, "{mark}{line}");
    }
}

fn table(entry: &ServerEntry, out: &mut String) {
    let name = &entry.name;
    // Writing into a string cannot fail.
    let _ = writeln!(out, "[dependencies.{name}]");
    match &entry.place {
        ServerPlace::Process {
            command,
            args,
            cwd,
            env,
        } => {
            let _ = writeln!(out, "kind = \"mcp_stdio\"");
            let _ = writeln!(out, "command = {}", quoted(command));
            let args: Vec<String> = args.iter().map(|one| quoted(one)).collect();
            if !args.is_empty() {
                let _ = writeln!(out, "args = [{}]", args.join(", "));
            }
            if let Some(cwd) = cwd {
                let _ = writeln!(out, "cwd = {}", quoted(cwd));
            }
            values(name, "env", env, out);
        }
        ServerPlace::Http { url, headers } => {
            let _ = writeln!(out, "kind = \"mcp_http\"");
            let _ = writeln!(out, "url = {}", quoted(url));
            values(name, "headers", headers, out);
        }
        ServerPlace::Unknown => {}
    }
}

fn values(name: &str, key: &str, values: &[NamedValue], out: &mut String) {
    if values.is_empty() {
        return;
    }
    let _ = writeln!(out, "[dependencies.{name}.{key}]");
    for one in values {
        let variable = variable(name, key, &one.name);
        let member = member(&one.name);
        match &one.value {
            GivenValue::Plain(text) => {
                let _ = writeln!(out, "{member} = {}", quoted(text));
            }
            GivenValue::Secret(text) => {
                let better = match &variable {
                    Some(variable) => format!("; better: the variable {variable}"),
                    None => String::new(),
                };
                let _ = writeln!(out, "# A secret in plain text{better}.");
                let _ = writeln!(out, "{member} = {}", quoted(text));
            }
            GivenValue::Reference(text) => {
                let place = match &variable {
                    Some(variable) => format!("set the variable {variable}"),
                    None => "write its value here".to_owned(),
                };
                let _ = writeln!(out, "# {member} = {}  # a reference: {place}", quoted(text));
            }
        }
    }
}

/// Returns what a person has to look at.
pub(super) fn notes(entry: &ServerEntry) -> Vec<String> {
    let name = &entry.name;
    let mut notes = Vec::new();
    for line in &entry.obstacles {
        notes.push(format!("{name}: it stands in comments: {line}"));
    }
    for line in &entry.remarks {
        notes.push(format!("{name}: {line}"));
    }
    let (key, values) = match &entry.place {
        ServerPlace::Process { env, .. } => ("env", env.as_slice()),
        ServerPlace::Http { headers, .. } => ("headers", headers.as_slice()),
        ServerPlace::Unknown => ("", &[][..]),
    };
    for one in values {
        let place = variable(name, key, &one.name);
        let full = format!("{key}.{}", one.name);
        let full = printable(&full);
        match (&one.value, place) {
            (GivenValue::Plain(_), _) => {}
            (GivenValue::Secret(_), Some(variable)) => notes.push(format!(
                "{name}: {full} is a secret in plain text; better: the variable {variable}"
            )),
            (GivenValue::Secret(_), None) => {
                notes.push(format!("{name}: {full} is a secret in plain text"));
            }
            (GivenValue::Reference(_), Some(variable)) => notes.push(format!(
                "{name}: {full} refers to a variable of the client: set the variable {variable}"
            )),
            (GivenValue::Reference(_), None) => notes.push(format!(
                "{name}: {full} refers to a variable of the client: write its value"
            )),
        }
    }
    notes
}

/// Returns the variable that sets a value; `None` if no shell could set one of this name.
fn variable(name: &str, key: &str, member: &str) -> Option<String> {
    // An underscore of a variable is a hyphen of a header.
    let within = if key == "headers" { '-' } else { '_' };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == within;
    let fits = member.chars().all(plain) && !member.contains(&format!("{within}{within}"));
    let member = member.replace('-', "_");
    fits.then(|| format!("BREAKERBOX__DEPENDENCIES__{name}__{key}__{member}").to_uppercase())
}

/// Returns a key of a table.
fn member(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// Returns a text as a basic string of TOML, which has the escapes of JSON. [`written_out`] does the rest.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Returns a whole file with every character written out that moves or reorders a terminal, or that
/// TOML does not allow. Such a one can only stand in a basic string, or in a comment.
pub(super) fn written_out(toml: &str) -> String {
    let mut clean = String::with_capacity(toml.len());
    for letter in toml.chars() {
        match printable(letter.encode_utf8(&mut [0; 4])) {
            // EDGE-7: the names and values of a client's file are not ours.
            Cow::Owned(_) if letter != '\n' => {
                // Writing into a string cannot fail.
                let _ = write!(clean, "\\U{:08X}", u32::from(letter));
            }
            _ => clean.push(letter),
        }
    }
    clean
}
