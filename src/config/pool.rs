//! Keys of `kind = "pool"`: dependencies of one shape, of which one answers each call.

use std::collections::BTreeMap;

use breakerbox_actors::did_you_mean;

use super::credential_names::holds_credentials;
use super::dependency::DependencyConfig;
use super::fallback::{FallbackKind, FallbackOn};
use super::kind::DependencyKind;
use super::mcp_group::{GroupMember, POOL_MEMBERS as ALLOWED};
use super::section::Section;
use super::url::origin;
use super::value_type::one_of;

/// Dependencies of which one answers each call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Names of the dependencies, the first choice first.
    pub members: Vec<String>,
    /// Choice among them.
    pub choose: PoolChoice,
}

/// Choice of the member that is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolChoice {
    /// The first one that would take the call.
    First,
    /// The one with the fewest calls in flight that would take the call.
    LeastBusy,
}

const CHOICES: &[(&str, PoolChoice)] = &[
    ("first", PoolChoice::First),
    ("least_busy", PoolChoice::LeastBusy),
];

/// Maximum number of members: each call asks every one of them at most once.
const MAX_MEMBERS: usize = 32;

/// Reads `choose`. `members`: as they were read. Returns `None` for a dependency of another kind.
pub(super) fn read(
    section: &mut Section<'_>,
    kind: Option<DependencyKind>,
    members: Option<Vec<GroupMember>>,
) -> Option<PoolConfig> {
    let choices = one_of(CHOICES);
    if kind != Some(DependencyKind::Pool) {
        section.get("choose", &choices);
        if section.has("choose") {
            let reason = "it applies to kind = \"pool\"";
            section.conflict("choose", reason, "to leave it out");
        }
        return None;
    }
    let choose = section.get_or("choose", &choices, PoolChoice::First);
    if !section.has("members") {
        section.conflict("members", "kind = \"pool\" needs it", ALLOWED);
    }
    let members = members.unwrap_or_default();
    let is_table = members.iter().any(|one| one.prefix != one.name);
    let mut numbered = members.iter().enumerate();
    let is_twice = numbered.any(|(place, one)| members[..place].contains(one));
    if is_table || is_twice || members.len() > MAX_MEMBERS {
        let reason = match (is_table, is_twice) {
            (true, _) => "a pool has no prefixes",
            (_, true) => "a member is named twice",
            _ => "it has too many members",
        };
        section.conflict("members", reason, ALLOWED);
    }
    Some(PoolConfig {
        members: members.iter().map(|one| one.name.clone()).collect(),
        choose,
    })
}

/// Shape of a dependency's answers: HTTP as it is, or an API of models.
fn shape(config: &DependencyConfig) -> Option<&'static str> {
    match config.kind? {
        DependencyKind::Http => Some("http"),
        DependencyKind::Model => config.model.as_ref().map(|model| model.api.name()),
        _ => None,
    }
}

/// Checks the members of pools and the shapes of fallbacks, once all dependencies are known.
pub(super) fn check(dependencies: &BTreeMap<String, DependencyConfig>, table: &Section<'_>) {
    for (owner, config) in dependencies {
        if let Some(pool) = &config.pool {
            check_members(dependencies, (owner, pool), table);
        }
        for (index, fallback) in config.fallbacks.iter().enumerate() {
            let key = |last| format!("{owner}.fallback[{index}].{last}");
            let of_models = [FallbackOn::TooLong, FallbackOn::Filtered];
            let is_of_model = fallback.on.iter().any(|on| of_models.contains(on));
            if is_of_model && config.model.is_none() {
                let reason = "only models reject prompts for that";
                table.conflict(&key("on"), reason, "\"refused\", \"failed\" or both");
            }
            let FallbackKind::Dependency { name, .. } = &fallback.kind else {
                // LLM-17: words of ours are never put into a model's mouth unasked.
                if config.model.is_some() && !fallback.writes {
                    let reason = "it would answer in place of a model";
                    table.conflict(&key("kind"), reason, "to set writes = true too, if it may");
                }
                continue;
            };
            let Some(other) = dependencies.get(name) else {
                continue;
            };
            if other.pool.is_some() {
                let reason = "a pool is no fallback";
                table.conflict(&key("name"), reason, "a member of the pool");
                continue;
            }
            let is_model = config.model.is_some() || other.model.is_some();
            // LLM-16: nothing is translated between two shapes.
            if is_model && config.kind.is_some() && shape(config) != shape(other) {
                let own = shape(config).unwrap_or("of another kind");
                let theirs = shape(other).unwrap_or("of another kind");
                let reason = format!("its api is {theirs}, and that of {owner} is {own}");
                table.conflict(&key("name"), reason, "a model with the same api");
            }
        }
    }
}

fn check_members(
    dependencies: &BTreeMap<String, DependencyConfig>,
    (owner, pool): (&str, &PoolConfig),
    table: &Section<'_>,
) {
    let key = format!("{owner}.members");
    let mut known: Vec<(&str, &DependencyConfig, &'static str)> = Vec::new();
    for name in &pool.members {
        let Some(config) = dependencies.get(name) else {
            let others = dependencies.keys().map(String::as_str);
            let near = did_you_mean(name, others.filter(|other| *other != owner));
            let reason = format!("there is no dependency {name:?}{near}");
            table.conflict(&key, reason, ALLOWED);
            continue;
        };
        match shape(config) {
            Some(shape) => known.push((name, config, shape)),
            None => {
                let reason = format!("{name} is neither a model nor an HTTP service");
                table.conflict(&key, reason, ALLOWED);
            }
        }
    }
    let Some((first, config, of_first)) = known.first() else {
        return;
    };
    // LLM-16: nothing is translated between two shapes.
    if let Some((name, _, other)) = known.iter().find(|(_, _, shape)| shape != of_first) {
        let reason = format!("{name} is {other}, and {first} is {of_first}");
        table.conflict(&key, reason, "members of one api");
    }
    let place = |config: &DependencyConfig| config.url.as_deref().map(origin);
    let has_key = |config: &DependencyConfig| {
        let model = config.model.as_ref();
        model.is_some_and(|model| model.key.is_some())
            || holds_credentials(config.url.as_deref(), &config.outbound, config.tls.as_ref())
    };
    // LLM-21: the caller's key is meant for one company.
    let keyless = known.iter().filter(|(_, config, _)| !has_key(config));
    let mut keyless = keyless.map(|(name, config, _)| (name, place(config)));
    let Some((one, origin)) = keyless.next().filter(|_| config.model.is_some()) else {
        return;
    };
    if let Some((name, _)) = keyless.find(|(_, other)| *other != origin) {
        let reason = format!("{one} and {name} have no key of their own, and different origins");
        table.conflict(&key, reason, "to set the key of each member");
    }
}
