//! The table of tools of an MCP server: which are shown, under which name, and what is known of
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::kind::DependencyKind;
use super::section::Section;
use super::value_type::{TICK, YEAR, boolean, duration, string};

/// Name of the entry that holds for every other tool.
const EVERY: &str = "*";

/// Entry of one tool. What it does not say is as in the entry `*`, or as the server says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ToolRule {
    /// False if callers neither see nor reach the tool.
    pub allow: Option<bool>,
    /// Name under which callers see the tool.
    pub rename: Option<String>,
    /// True if the tool changes something; it takes precedence over the tool's own hint.
    pub write: Option<bool>,
    /// True if a call may be repeated after it may have been executed (CALL-7); it takes precedence
    /// over the tool's own hint.
    pub idempotent: Option<bool>,
    /// Time limit of one attempt, instead of `timeout.attempt`; at most `timeout.total`.
    pub timeout: Option<Duration>,
}

impl ToolRule {
    /// Returns this entry, completed by another one.
    fn or(&self, every: &Self) -> Self {
        Self {
            allow: self.allow.or(every.allow),
            rename: self.rename.clone(),
            write: self.write.or(every.write),
            idempotent: self.idempotent.or(every.idempotent),
            timeout: self.timeout.or(every.timeout),
        }
    }
}

/// The table of tools of one MCP server.
///
/// # Source  Rule MCP-6 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ToolRules {
    /// The entries by the tool's own name, complete.
    pub named: BTreeMap<String, ToolRule>,
    /// The entry of all other tools.
    pub every: ToolRule,
}

impl ToolRules {
    /// Returns the entry of a tool. `name`: the server's own.
    #[must_use]
    pub fn of(&self, name: &str) -> &ToolRule {
        self.named.get(name).unwrap_or(&self.every)
    }

    /// Returns true if the table says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads the table `tools`.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
    total: Option<Duration>,
) -> ToolRules {
    let is_given = section.has("tools");
    let table = section.section("tools");
    let has_tools = matches!(
        kind,
        Some(DependencyKind::McpStdio | DependencyKind::McpHttp)
    );
    if is_given && kind.is_some() && !has_tools {
        let reason = "it applies to kind = \"mcp_stdio\" and \"mcp_http\"";
        section.conflict("tools", reason, "to leave it out");
        return ToolRules::default();
    }
    let names = table.names();
    let mut rules = ToolRules::default();
    for name in names {
        let rule = read_one(&table, &name, total);
        if name == EVERY {
            rules.every = rule;
        } else {
            rules.named.insert(name, rule);
        }
    }
    let every = rules.every.clone();
    for (name, rule) in &mut rules.named {
        let says_more = *rule != ToolRule::default();
        *rule = rule.or(&every);
        if rule.allow == Some(false) && says_more && !table.is_given(&format!("{name}.allow")) {
            let text = "it has no effect: the entry * forbids the tool, and this one does not say \
                        allow = true";
            table.warn(name, text.to_owned());
        }
    }
    check_names(&table, &rules);
    rules
}

fn read_one(table: &Section<'_>, name: &str, total: Option<Duration>) -> ToolRule {
    let mut entry = table.named(name);
    let tool = string(
        "the name of a tool: 1 to 128 letters, digits, _, -, . or /",
        is_tool_name,
    );
    let span = duration(TICK..=YEAR);
    let rule = ToolRule {
        allow: entry.get("allow", &boolean()),
        rename: entry.get("rename", &tool),
        write: entry.get("write", &boolean()),
        idempotent: entry.get("idempotent", &boolean()),
        timeout: entry.get("timeout", &span),
    };
    entry.warn_if_long("timeout", &span, "");
    // The name of the probe that collects all keys, too.
    if name == EVERY && rule.rename.is_some() {
        let reason = "all tools would have one name";
        entry.conflict("rename", reason, "it in the entry of one tool");
    }
    if name.is_empty() {
        let reason = "a tool has a name";
        entry.conflict_here(reason, "the name of a tool, or * for all others");
    }
    if let (Some(limit), Some(total)) = (rule.timeout, total)
        && limit > total
    {
        let text = "it is longer than timeout.total, which ends the call before";
        entry.warn("timeout", text.to_owned());
    }
    let is_off = rule.allow == Some(false);
    for key in ["rename", "write", "idempotent", "timeout"] {
        if is_off && name != EVERY && entry.has(key) {
            entry.warn(
                key,
                "it has no effect on a tool that is not allowed".to_owned(),
            );
        }
    }
    entry.finish();
    rule
}

/// Checks that each name that callers see stands for one tool.
fn check_names(table: &Section<'_>, rules: &ToolRules) {
    let is_open = |rule: &ToolRule| rule.allow != Some(false);
    let unnamed = rules.named.iter();
    let unnamed = unnamed.filter(|(_, rule)| rule.rename.is_none() && is_open(rule));
    let mut taken: BTreeSet<&str> = unnamed.map(|(name, _)| name.as_str()).collect();
    for (name, rule) in &rules.named {
        let Some(new) = rule.rename.as_deref().filter(|_| is_open(rule)) else {
            continue;
        };
        if !taken.insert(new) {
            let key = format!("{name}.rename");
            let reason = "another tool of this table has the name already";
            table.conflict(&key, reason, "a name of its own");
        }
    }
}

/// Returns true for names that all clients accept.
///
/// # Source  Model Context Protocol 2025-11-25, tools, "Tool Names".
pub(super) fn is_tool_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(plain)
}
