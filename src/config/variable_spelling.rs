//! Names in the keys of variables, spelled as the files spell them.
//!
//! A shell takes no hyphen in the name of a variable, and the case of its letters is not kept: without
//! this, `HEADERS__X_API_KEY` would set a header `x_api_key` beside the file's `x-api-key`, and no
//! variable could reach a dependency `web-search`. Nothing here reads a value.

use std::collections::{BTreeMap, BTreeSet};

use config::{Map, Value, ValueKind};

use super::known_keys::last_of;

/// Sections of named tables, and the words that begin a variable of one.
pub(super) const OWNERS: [(&str, [&str; 2]); 2] = [
    ("dependencies", ["dependencies", "dependency"]),
    ("consumers", ["consumers", "consumer"]),
];
/// Tables of a dependency in which the keys are names of any form.
pub(super) const NAMED: [&str; 3] = ["env", "headers", "links"];
/// A table of a dependency in which each name has a table of its own.
const TOOLS: &str = "tools";

/// Returns true for a section of named tables.
pub(super) fn is_owner(section: &str) -> bool {
    OWNERS.iter().any(|(owner, _)| *owner == section)
}

/// The names that the files give, by the table that they are in.
#[derive(Debug, Default)]
pub(super) struct FileNames(BTreeMap<String, BTreeSet<String>>);

impl FileNames {
    /// Collects the names of all files.
    pub(super) fn of<'m>(files: impl IntoIterator<Item = &'m Map<String, Value>>) -> Self {
        let mut names = Self::default();
        for (owner, table) in files.into_iter().flatten() {
            if !is_owner(owner) {
                continue;
            }
            for (name, one) in names.take(owner, table) {
                for key in NAMED.into_iter().chain([TOOLS]) {
                    if let Some(named) = one.get(key) {
                        names.take(&format!("{owner}.{name}.{key}"), named);
                    }
                }
            }
        }
        names
    }

    /// Returns the names of the dependencies.
    pub(super) fn dependencies(&self) -> Vec<&str> {
        let known = self.0.get("dependencies").into_iter().flatten();
        known.map(String::as_str).collect()
    }

    /// Notes the names in a table, and returns those that are tables themselves.
    fn take<'v>(&mut self, path: &str, table: &'v Value) -> Vec<(&'v str, &'v Map<String, Value>)> {
        let ValueKind::Table(table) = &table.kind else {
            return Vec::new();
        };
        let known = self.0.entry(path.to_owned()).or_default();
        known.extend(table.keys().cloned());
        let inner = table.iter().filter_map(|(name, one)| match &one.kind {
            ValueKind::Table(inner) => Some((name.as_str(), inner)),
            _ => None,
        });
        inner.collect()
    }

    /// Returns the key of a variable with its names spelled as the files spell them.
    ///
    /// Of those that no file has, a header gets hyphens in place of underscores, since servers drop
    /// names with underscores, and a variable of a server gets capitals.
    pub(super) fn spelled(&self, key: &str) -> String {
        let mut path = String::new();
        for (place, part) in key.split('.').enumerate() {
            let part = match place {
                1 | 3 => self.name_in(&path, part),
                _ => part.to_owned(),
            };
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
        path
    }

    /// Returns the name that a part of a key stands for, in the table at `path`.
    fn name_in(&self, path: &str, part: &str) -> String {
        // EDGE-7: a name that means one of the files is that one, and no other beside it.
        let known = self.0.get(path);
        if known.is_some_and(|known| known.contains(part)) {
            return part.to_owned();
        }
        let known = known.into_iter().flatten();
        let mut meant = known.filter(|name| is_same(name, part));
        if let (Some(name), None) = (meant.next(), meant.next()) {
            return name.clone();
        }
        match path.strip_prefix("dependencies.").map(last_of) {
            Some("headers") => part.replace('_', "-"),
            Some("env") => part.to_ascii_uppercase(),
            _ => part.to_owned(),
        }
    }
}

/// Returns true if a variable has no other way to write the name of a file.
fn is_same(name: &str, part: &str) -> bool {
    let lower = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    lower(name) == lower(part)
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    const FILE: &str = "[dependencies.web-search]\nkind = \"http\"\nurl = \"http://127.0.0.1:1\"\n\
                        headers = { X-Api-Key = \"of the file\", x_team = \"blue\" }\n\
                        [dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"kg\"\n\
                        env = { apiKey = \"of the file\" }\ntools.readFile.timeout = \"1s\"\n";

    fn loaded(variables: &[(&str, &str)]) -> Settings {
        let variables = variables
            .iter()
            .map(|(key, value)| (format!("BREAKERBOX__DEPENDENCIES__{key}"), *value));
        let loader = Settings::loader().bare().toml(FILE);
        loader.env_vars(variables).load().unwrap()
    }

    #[test]
    fn edge_7_a_variable_reaches_names_with_hyphens_and_capitals() {
        let settings = loaded(&[
            ("WEB_SEARCH__URL", "http://127.0.0.1:2"),
            ("WEB_SEARCH__HEADERS__X_API_KEY", "of the variable"),
            ("WEB_SEARCH__HEADERS__X_TEAM", "red"),
            ("KG__ENV__APIKEY", "of the variable"),
            ("KG__TOOLS__READFILE__TIMEOUT", "2s"),
        ]);
        assert_eq!(settings.dependencies.len(), 2);
        let web = &settings.dependencies["web-search"];
        assert_eq!(web.url.as_deref(), Some("http://127.0.0.1:2"));
        let headers = &web.outbound.headers;
        let names: Vec<_> = headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["X-Api-Key", "x_team"]);
        assert_eq!(headers["X-Api-Key"].expose(), "of the variable");
        assert_eq!(headers["x_team"].expose(), "red");
        let kg = &settings.dependencies["kg"];
        let env = &kg.mcp.as_ref().unwrap().env;
        assert_eq!((env.len(), env["apiKey"].expose()), (1, "of the variable"));
        let tools = &kg.tools.named;
        assert_eq!(tools.len(), 1);
        assert_eq!(tools["readFile"].timeout.unwrap().as_secs(), 2);
    }

    #[test]
    fn edge_7_of_a_variable_alone_a_header_has_hyphens_and_a_variable_capitals() {
        let settings = loaded(&[
            ("WEB_SEARCH__HEADERS__X_TRACE_TEAM", "red"),
            ("KG__ENV__API_KEY", "of the variable"),
        ]);
        let env = &settings.dependencies["kg"].mcp.as_ref().unwrap().env;
        let env: Vec<_> = env.keys().map(String::as_str).collect();
        assert_eq!(env, ["API_KEY", "apiKey"]);
        let headers = &settings.dependencies["web-search"].outbound.headers;
        assert_eq!(headers["x-trace-team"].expose(), "red");
        assert_eq!(headers.len(), 3);
    }
}
