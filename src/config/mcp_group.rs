//! A group of MCP servers behind one endpoint.

use std::collections::BTreeMap;

use breakerbox_actors::did_you_mean;
use config::ValueKind;
use serde_json::json;

use super::dependency::DependencyConfig;
use super::fallback::FallbackKind;
use super::kind::DependencyKind;
use super::section::Section;
use super::value_type::{ValueType, string};

/// Member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Beginning of the names of its tools and prompts, before a `_`.
    pub prefix: String,
    /// The dependency.
    pub name: String,
}

const ALLOWED: &str = "a table of prefixes and dependencies, such as { docs = \"doc_server\" }, or a \
                       list of dependencies";

/// Allowed members of a pool.
pub(super) const POOL_MEMBERS: &str =
    "a list of 1 to 32 dependencies with kind = \"model\", or with kind = \"http\"";

/// Reads `members`, of a group or a pool. Returns `None` for a dependency of another kind.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
) -> Option<Vec<GroupMember>> {
    if kind == Some(DependencyKind::Pool) {
        return section.get("members", &members().described_as(POOL_MEMBERS));
    }
    let members = section.get("members", &members());
    let is_group = kind == Some(DependencyKind::McpGroup);
    if section.has("members") && !is_group {
        let reason = "it applies to kind = \"mcp_group\" and \"pool\"";
        section.conflict("members", reason, "to leave it out");
    }
    if !is_group {
        return None;
    }
    if !section.has("members") {
        section.conflict("members", "kind = \"mcp_group\" needs it", ALLOWED);
    }
    let members = members.unwrap_or_default();
    for (index, one) in members.iter().enumerate() {
        let begin = format!("{}_", one.prefix);
        let others = members
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != index);
        for (place, other) in others {
            let is_same = place > index && other.prefix == one.prefix;
            if is_same || other.prefix.starts_with(&begin) {
                let reason = format!(
                    "the prefix {:?} begins with {begin:?}, so names would be ambiguous",
                    format!("{}_", other.prefix)
                );
                section.conflict("members", reason, "prefixes of which none begins another");
            }
        }
    }
    Some(members)
}

/// Returns the type of the key: a table, or a list of names that are the prefixes too.
fn members() -> ValueType<'static, Vec<GroupMember>> {
    let names = string("the name of a dependency", |name| !name.is_empty()).list();
    let parse = move |value: &config::Value| {
        let members: Vec<GroupMember> = match &value.kind {
            ValueKind::Table(table) => {
                let sorted: BTreeMap<_, _> = table.iter().collect();
                let members = sorted.into_iter().map(|(prefix, name)| match &name.kind {
                    ValueKind::String(name) => Some(GroupMember {
                        prefix: prefix.clone(),
                        name: name.clone(),
                    }),
                    _ => None,
                });
                members.collect::<Option<_>>()?
            }
            _ => {
                let names = (names.parse)(value)?.into_iter();
                names
                    .map(|name| GroupMember {
                        prefix: name.clone(),
                        name,
                    })
                    .collect()
            }
        };
        let is_sound = !members.is_empty() && members.iter().all(|one| is_prefix(&one.prefix));
        is_sound.then_some(members)
    };
    let show = |members: &Vec<GroupMember>| {
        let members = members.iter();
        let members = members.map(|one| format!("{} = {:?}", one.prefix, one.name));
        format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
    };
    let shown = |value: &config::Value| match &value.kind {
        ValueKind::Table(table) => {
            let sorted: BTreeMap<_, _> = table.iter().collect();
            let entries = sorted
                .into_iter()
                .map(|(prefix, name)| format!("{prefix} = {}", super::masking::show(name)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        _ => super::masking::show(value),
    };
    let schema = json!({ "anyOf": [
        { "type": "array", "items": { "type": "string" } },
        { "type": "object", "additionalProperties": { "type": "string" } },
    ] });
    ValueType::new(ALLOWED, parse, show)
        .shown_by(shown)
        .schema(schema)
}

fn is_prefix(prefix: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=64).contains(&prefix.len()) && prefix.bytes().all(plain)
}

/// Checks that the members are MCP servers and that no dependency falls back on a group, once all
/// dependencies are known.
pub(super) fn check(dependencies: &BTreeMap<String, DependencyConfig>, table: &Section<'_>) {
    for (owner, config) in dependencies {
        for member in config.members.iter().flatten() {
            let kind = dependencies.get(&member.name).map(|other| other.kind);
            let reason = match kind {
                Some(Some(DependencyKind::McpStdio | DependencyKind::McpHttp)) => continue,
                Some(_) => format!("{} is no MCP server", member.name),
                None => {
                    let servers = dependencies.iter().filter(|(name, other)| {
                        let is_server = other.kind.is_some_and(DependencyKind::is_mcp);
                        *name != owner && is_server
                    });
                    let known = servers.map(|(name, _)| name.as_str());
                    let near = did_you_mean(&member.name, known);
                    format!("there is no dependency {:?}{near}", member.name)
                }
            };
            let allowed = "the names of dependencies with kind = \"mcp_stdio\" or \"mcp_http\"";
            table.conflict(&format!("{owner}.members"), reason, allowed);
        }
        for (index, fallback) in config.fallbacks.iter().enumerate() {
            let FallbackKind::Dependency { name, .. } = &fallback.kind else {
                continue;
            };
            let other = dependencies.get(name).and_then(|other| other.kind);
            if other == Some(DependencyKind::McpGroup) {
                let key = format!("{owner}.fallback[{index}].name");
                let reason = "a group answers no calls itself";
                table.conflict(&key, reason, "a member of the group");
            }
        }
    }
}

/// Reports groups that would let callers pass by the checks of their members. `has_auth`: there are
/// credentials for all dependencies.
pub(super) fn check_auth(
    dependencies: &BTreeMap<String, DependencyConfig>,
    has_auth: bool,
    table: &Section<'_>,
) {
    let is_open = |config: &DependencyConfig| config.auth.is_open(has_auth);
    for (owner, config) in dependencies {
        if !is_open(config) {
            continue;
        }
        let members = config.members.iter().flatten().map(|member| &member.name);
        let members = members.chain(config.pool.iter().flat_map(|pool| &pool.members));
        let fallbacks = config.fallbacks.iter().filter_map(|one| match &one.kind {
            FallbackKind::Dependency { name, .. } => Some(name),
            _ => None,
        });
        let all = members.chain(fallbacks);
        let closed = all.filter_map(|one| dependencies.get_key_value(one));
        for (name, _) in closed.filter(|(_, member)| !is_open(member)) {
            let what = match config.kind {
                Some(DependencyKind::Pool) => "pool",
                Some(DependencyKind::McpGroup) => "group",
                _ => "dependency",
            };
            let reason =
                format!("callers of the {what} would reach {name} without its credentials");
            table.conflict(
                &format!("{owner}.auth"),
                reason,
                &format!("an auth of the {what} itself"),
            );
        }
    }
}
