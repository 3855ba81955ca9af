//! The configured table of tools, applied: what callers see of a server's tools, and which tool a
//! name stands for.
//!
//! It decides by names alone, and calls nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use super::raw_object::{RawObject, array};
use crate::config::{ToolRule, ToolRules};
use crate::lock::LockExt as _;
use crate::mcp::JsonText;
use crate::mcp::tools::RawTool;

/// The table of one server.
#[derive(Debug, Default)]
pub(crate) struct AppliedTools {
    rules: ToolRules,
    /// Tools with another name, by the name that callers see.
    renamed: HashMap<String, String>,
    /// Entries of which the log was told already.
    told: Mutex<BTreeSet<String>>,
}

/// Form in which callers see a tool.
enum ToolVisibility<'a> {
    Hidden,
    Same,
    Renamed(&'a str),
}

/// A tool that a caller may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReachableTool {
    /// The server's own name.
    pub(crate) name: String,
    /// The table's entry.
    pub(crate) rule: ToolRule,
}

impl AppliedTools {
    pub(crate) fn new(rules: &ToolRules) -> Self {
        let named = rules.named.iter();
        let renamed = named.filter(|(_, rule)| rule.allow != Some(false));
        let renamed = renamed.filter_map(|(name, rule)| Some((rule.rename.clone()?, name.clone())));
        Self {
            renamed: renamed.collect(),
            rules: rules.clone(),
            told: Mutex::default(),
        }
    }

    /// Returns true if it was made of these rules.
    pub(crate) fn is_of(&self, rules: &ToolRules) -> bool {
        self.rules == *rules
    }

    /// Returns true if the table has an entry of this tool's own.
    pub(crate) fn names(&self, own: &str) -> bool {
        self.rules.named.contains_key(own)
    }

    /// Returns the key of the time that a tool has for each attempt; `None` if the table gives it none.
    /// `own`: the server's own name.
    pub(crate) fn time_key(&self, own: &str) -> Option<String> {
        self.rules.of(own).timeout?;
        let entry = if self.names(own) { own } else { "*" };
        Some(format!("tools.{entry}.timeout"))
    }

    /// Returns the tool that a caller means; `None` if there is none that it may reach. `name`: as
    /// callers see it.
    pub(crate) fn find(&self, name: &str) -> Option<ReachableTool> {
        let own = match self.renamed.get(name) {
            Some(own) => own.as_str(),
            None => name,
        };
        let rule = self.rules.of(own);
        // MCP-6: the former name of a renamed tool stands for nothing.
        let is_hidden = own == name && rule.rename.as_deref().is_some_and(|new| new != name);
        if rule.allow == Some(false) || is_hidden {
            return None;
        }
        Some(ReachableTool {
            name: own.to_owned(),
            rule: rule.clone(),
        })
    }

    /// Returns what callers see of a tool. `own`: the server's own name.
    fn view(&self, own: &str) -> ToolVisibility<'_> {
        let rule = self.rules.of(own);
        match &rule.rename {
            _ if rule.allow == Some(false) => ToolVisibility::Hidden,
            Some(new) if new != own => ToolVisibility::Renamed(new),
            Some(_) => ToolVisibility::Same,
            // Another tool has been given this name.
            None if self.renamed.contains_key(own) => ToolVisibility::Hidden,
            None => ToolVisibility::Same,
        }
    }

    /// Returns the name under which callers see a tool; `None` if they do not.
    pub(crate) fn shown<'a>(&'a self, own: &'a str) -> Option<&'a str> {
        match self.view(own) {
            ToolVisibility::Hidden => None,
            ToolVisibility::Same => Some(own),
            ToolVisibility::Renamed(new) => Some(new),
        }
    }

    /// Returns the tools that callers see, as they see them.
    pub(crate) fn seen(&self, tools: &Arc<[RawTool]>) -> Arc<[RawTool]> {
        if self.rules.is_empty() {
            return Arc::clone(tools);
        }
        let seen = tools
            .iter()
            .filter_map(|tool| match self.view(tool.name()) {
                ToolVisibility::Hidden => None,
                ToolVisibility::Same => Some(tool.clone()),
                ToolVisibility::Renamed(new) => {
                    let mut item = RawObject::read(tool.text.as_str())?;
                    item.set_string("name", new);
                    let text = JsonText::checked(item.write().into());
                    Some(RawTool::new(new, text))
                }
            });
        seen.collect()
    }

    /// Applies the table to the result of `tools/list`. Returns `None` if it stays as it is.
    ///
    /// # Units   `result`: the text of the result.
    pub(crate) fn filter(&self, result: &str) -> Option<String> {
        if self.rules.is_empty() {
            return None;
        }
        let mut result = RawObject::read(result)?;
        let mut shown = Vec::new();
        for item in result.items("tools")? {
            let Some(mut tool) = RawObject::read(item) else {
                continue;
            };
            let Some(own) = tool.string("name") else {
                continue;
            };
            match self.view(&own) {
                ToolVisibility::Hidden => {}
                ToolVisibility::Same => shown.push(item.to_owned()),
                ToolVisibility::Renamed(new) => {
                    tool.set_string("name", new);
                    shown.push(tool.write());
                }
            }
        }
        result.set("tools", array(&shown));
        Some(result.write())
    }

    /// Warns once of each entry for a tool that the server does not have. `listed`: all its tools.
    pub(crate) fn tell_absent(&self, dependency: &str, listed: &[RawTool]) {
        let is_mentioned = |name: &&str| self.names(name) || self.renamed.contains_key(*name);
        let listed = listed.iter().map(RawTool::name).filter(is_mentioned);
        let listed: BTreeSet<&str> = listed.collect();
        let absent = self.rules.named.keys();
        let absent = absent.filter(|name| !listed.contains(name.as_str()));
        for name in absent {
            if self.told.acquire().insert(name.clone()) {
                tracing::warn!(
                    dependency,
                    tool = name,
                    "the table of tools names a tool that the server does not have"
                );
            }
        }
        let hidden = self.renamed.iter();
        let hidden = hidden.filter(|(new, own)| {
            let is_moved = self.rules.of(new).rename.is_some();
            new != own && !is_moved && listed.contains(new.as_str())
        });
        for (new, _) in hidden {
            if self.told.acquire().insert(format!("{new}\n")) {
                tracing::warn!(
                    dependency,
                    tool = new,
                    "another tool has been given the name of this one, which callers do not see"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Settings;

    use super::*;

    fn table(text: &str) -> AppliedTools {
        let text = format!(
            "[dependencies.kg]\nkind = \"mcp_stdio\"\ncommand = \"x\"\n[dependencies.kg.tools]\n{text}"
        );
        let settings = Settings::loader().bare().toml(text).load().unwrap();
        AppliedTools::new(&settings.dependencies["kg"].tools)
    }

    fn names(table: &AppliedTools, all: &[&str]) -> Vec<String> {
        let tools: Vec<String> = all
            .iter()
            .map(|name| format!(r#"{{"inputSchema":{{}}, "name":"{name}"}}"#))
            .collect();
        let result = format!(r#"{{"tools":{},"nextCursor":"x"}}"#, array(&tools));
        let shown = table.filter(&result).unwrap_or(result);
        let shown = RawObject::read(&shown).unwrap();
        assert_eq!(shown.string("nextCursor").as_deref(), Some("x"));
        let items = shown.items("tools").unwrap();
        let name = |item: &&str| RawObject::read(item).unwrap().string("name").unwrap();
        items.iter().map(name).collect()
    }

    #[test]
    fn edge_8_the_time_of_a_tool_is_named_by_its_key() {
        let table = table("slow = { timeout = \"5s\" }\nwrite = { rename = \"put\" }");
        assert_eq!(
            table.time_key("slow").as_deref(),
            Some("tools.slow.timeout")
        );
        assert_eq!(table.time_key("write"), None);
        let every = self::table("\"*\" = { timeout = \"5s\" }");
        assert_eq!(every.time_key("any").as_deref(), Some("tools.*.timeout"));
    }

    #[test]
    fn mcp_6_m12_what_is_shown_is_what_can_be_called() {
        let all = ["read", "write.file", "drop", "find"];
        let cases: [(&str, &[&str]); 6] = [
            ("", &all),
            ("drop = { allow = false }", &["read", "write.file", "find"]),
            (
                "\"*\" = { allow = false }\nread = { allow = true }",
                &["read"],
            ),
            (
                "\"write.file\" = { rename = \"write\" }",
                &["read", "write", "drop", "find"],
            ),
            (
                "find = { rename = \"drop\" }",
                &["read", "write.file", "drop"],
            ),
            (
                "find = { rename = \"drop\" }\ndrop = { rename = \"find\" }",
                &["read", "write.file", "find", "drop"],
            ),
        ];
        for (text, shown) in cases {
            let table = table(text);
            assert_eq!(names(&table, &all), shown, "{text}");
            for name in all.iter().chain(["write", "other"].iter()) {
                let is_reached = table
                    .find(name)
                    .is_some_and(|tool| all.contains(&tool.name.as_str()));
                assert_eq!(is_reached, shown.contains(name), "{text}: {name}");
            }
        }
        let table = table("find = { rename = \"drop\" }");
        assert_eq!(table.find("drop").unwrap().name, "find");
    }
}
