//! Servers of an agent's client (`mcp.json`) as a configuration.
//!
//! Claude, Cursor, VS Code and others name their servers in similar files. The result is text with
//! comments, for a person to read; nothing is started and no value is guessed.

mod jsonc;
mod server_entry;
mod toml_text;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use server_entry::ServerEntry;

/// Maximum size of a file, in bytes.
const MAX_FILE: usize = 10_000_000;

/// A configuration that was made of a client's file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportedConfig {
    /// The configuration, as TOML.
    pub toml: String,
    /// Number of servers that can be started as they are.
    pub ready: usize,
    /// Number of servers that stand in comments only.
    pub commented: usize,
    /// Remarks for a person: secrets, references, and what could not be taken over. None of
    /// them contains a value.
    pub notes: Vec<String>,
}

/// Reason why a client's file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is too long.
    #[error("it has {0} bytes; at most 10 MB are allowed")]
    TooLong(usize),
    /// It is no JSON.
    #[error("it is no JSON, not even with comments: {0}")]
    Syntax(String),
    /// It names no servers.
    #[error(
        "it has no servers; allowed: an object \"mcpServers\" (Claude, Cursor) or \"servers\" (VS Code)"
    )]
    NoServers,
}

/// Reads the file of a client. `source`: its name, for a comment.
///
/// ```
/// use breakerbox::config::import_clients;
///
/// let file = r#"{ "mcpServers": { "Docs": { "command": "npx", "args": ["-y", "docs-server"] } } }"#;
/// let imported = import_clients(file, "mcp.json")?;
/// assert!(imported.toml.contains("[dependencies.docs]\nkind = \"mcp_stdio\"\n"));
/// # Ok::<(), breakerbox::config::ImportError>(())
/// ```
///
/// # Errors  [`ImportError`].
pub fn import_clients(text: &str, source: &str) -> Result<ImportedConfig, ImportError> {
    if text.len() > MAX_FILE {
        return Err(ImportError::TooLong(text.len()));
    }
    let root: Value = serde_json::from_str(&jsonc::plain(text))
        .map_err(|error| ImportError::Syntax(error.to_string()))?;
    let servers = servers(&root).ok_or(ImportError::NoServers)?;
    let mut imported = ImportedConfig {
        toml: format!(
            "# Servers of {}, as dependencies of the gateway: each at /NAME/mcp.\n",
            Value::from(source)
        ),
        ready: 0,
        commented: 0,
        notes: Vec::new(),
    };
    let mut taken = BTreeSet::new();
    for (title, entry) in servers {
        let name = free_name(title, &mut taken);
        let entry = ServerEntry::read(&name, title, entry);
        imported.toml.push('\n');
        toml_text::write(&entry, &mut imported.toml);
        if entry.obstacles.is_empty() {
            imported.ready += 1;
        } else {
            imported.commented += 1;
        }
        imported.notes.extend(toml_text::notes(&entry));
    }
    imported.toml = toml_text::written_out(&imported.toml);
    Ok(imported)
}

/// Finds the table of servers.
fn servers(root: &Value) -> Option<&Map<String, Value>> {
    let places = ["/mcpServers", "/servers", "/mcp/servers", "/mcp/mcpServers"];
    let mut found = places
        .iter()
        .filter_map(|place| root.pointer(place)?.as_object());
    found.find(|table| !table.is_empty())
}

/// Makes the name of a dependency from a title: lower-case letters, digits and `_`, so that
/// variables can name it too.
fn free_name(title: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = String::new();
    for letter in title.chars().flat_map(char::to_lowercase) {
        let is_plain = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        if is_plain {
            name.push(letter);
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    let name = name.trim_end_matches('_');
    let mut name = if name.starts_with(|letter: char| letter.is_ascii_lowercase()) {
        name.to_owned()
    } else {
        format!("server_{name}").trim_end_matches('_').to_owned()
    };
    name.truncate(56);
    let base = name.clone();
    let mut number = 2;
    while !taken.insert(name.clone()) {
        name = format!("{base}_{number}");
        number += 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcp_6_a_header_that_refers_to_a_variable_is_set_by_one_of_ours() {
        let file = r#"{ "mcpServers": { "docs": { "type": "http", "url": "http://127.0.0.1:1/mcp",
                        "headers": { "X-Api-Key": "${KEY}" } } } }"#;
        let toml = import_clients(file, "mcp.json").unwrap().toml;
        let name = "BREAKERBOX__DEPENDENCIES__DOCS__HEADERS__X_API_KEY";
        assert!(
            toml.contains(&format!("set the variable {name}\n")),
            "{toml}"
        );
        let loader = crate::Settings::loader().bare().toml(toml);
        let settings = loader.env_vars([(name, "k")]).load().unwrap();
        let headers = &settings.dependencies["docs"].mcp.as_ref().unwrap().headers;
        let names: Vec<_> = headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["x-api-key"]);
    }

    #[test]
    fn edge_7_no_text_of_a_client_moves_a_terminal_and_its_value_is_the_same() {
        let odd = "a\u{9b}2J\u{202e}\u{7f}\u{e0041}";
        let file = serde_json::json!({ "mcpServers": { odd: {
            "command": "docs", "args": [odd], "env": { odd: odd }, odd: 1,
        } } });
        // Its notes are written out by the command.
        let toml = import_clients(&file.to_string(), odd).unwrap().toml;
        let moves = |letter: char| letter != '\n' && letter.is_control();
        assert!(
            !toml.contains(moves) && !toml.contains(['\u{202e}', '\u{e0041}']),
            "{toml:?}"
        );
        let settings = crate::Settings::loader().bare().toml(toml).load().unwrap();
        let docs = settings.dependencies.values().next().unwrap();
        assert_eq!(docs.mcp.as_ref().unwrap().args, [odd]);
    }

    #[test]
    fn mcp_6_m12_titles_become_names_of_dependencies() {
        let mut taken = BTreeSet::new();
        let mut name = |title| free_name(title, &mut taken);
        assert_eq!(name("GitHub Tools"), "github_tools");
        assert_eq!(name("github-tools"), "github_tools_2");
        assert_eq!(name("7zip"), "server_7zip");
        assert_eq!(name("日本"), "server");
        assert_eq!(name(""), "server_2");
        assert!(name(&"x".repeat(200)).len() <= 64);
    }
}
