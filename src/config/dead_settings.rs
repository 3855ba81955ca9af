//! Warnings about settings that have no effect, and about those that take a protection out.
//!
//! All of them are usable: nothing here is a problem.

mod odd_settings;

use std::collections::BTreeMap;
use std::time::Duration;

use breakerbox_actors::nearest_word;
use breakerbox_policy::{KeySettings, OverrideMode, TimeoutSettings};

use super::Settings;
use super::dependency::DependencyConfig;
use super::fallback::FallbackKind;
use super::fleet::KeySharing;
use super::gateway::TrustedHeader;
use super::kind::DependencyKind;
use super::model::ModelKeys;
use super::section::Section;
use super::upstream::MAX_CONNECTION_AGE;

pub(super) use odd_settings::check_same_address;

/// The methods of HTTP that are registered, and one of caches.
const METHODS: [&str; 41] = [
    "GET",
    "HEAD",
    "OPTIONS",
    "PUT",
    "DELETE",
    "POST",
    "PATCH",
    "TRACE",
    "CONNECT",
    "QUERY",
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "REBIND",
    "REPORT",
    "SEARCH",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Warns about one dependency, after its table was read.
pub(super) fn check(section: &Section<'_>, config: &DependencyConfig) {
    odd_settings::check(section, config);
    // Without a kind the program brings the code, which may know more than the configuration.
    if let Some(kind) = config.kind {
        // Tools of MCP servers may say themselves that they are idempotent.
        let is_mcp = [
            DependencyKind::McpStdio,
            DependencyKind::McpHttp,
            DependencyKind::McpGroup,
            DependencyKind::Model,
            DependencyKind::Pool,
        ];
        if !is_mcp.contains(&kind) {
            check_repeats(section, config);
        }
        if kind.is_http() {
            check_methods(section, config);
        }
        check_kind(section, config, kind);
        check_command(section, config);
    }
    check_retry(section, config);
    check_breaker(section, config);
    check_limits(section, config);
    check_timeouts(section, config);
    check_own_fallbacks(section, config);
}

/// Warns of the parts of dependencies in a fleet, where there is none.
pub(super) fn check_fleet_parts(table: &Section<'_>) {
    for name in table.names() {
        // A file that names each default, as the one that ships does, says nothing.
        for (key, usual) in [
            ("trips", "confirm"),
            ("probes", "one"),
            ("pauses", "hinted"),
            ("keys", "off"),
        ] {
            let key = format!("{name}.fleet.{key}");
            if table.given_word(&key).is_some_and(|word| word != usual) {
                let text = "it has no effect without a section [fleet]";
                table.warn(&key, text.to_owned());
            }
        }
    }
}

/// Reports shared limits of dependencies without a fleet to share them with.
pub(super) fn check_sharing<'a>(
    dependencies: impl Iterator<Item = (&'a String, &'a DependencyConfig)>,
    has_fleet: bool,
    table: &Section<'_>,
) {
    let reason = "there is no section fleet to share it with";
    for (name, one) in dependencies.filter(|_| !has_fleet) {
        if one.settings.rate_sharing.is_some() {
            let key = format!("{name}.rate_limit.shared");
            table.conflict(&key, reason, "fleet.servers too, or false");
        }
        let mut limits = one.model.iter().flat_map(|model| &model.token_limits);
        if limits.any(|limit| limit.shared) {
            let key = format!("{name}.token_limit");
            let allowed = "fleet.servers too, or shared = false in it";
            table.conflict(&key, reason, allowed);
        }
    }
}

/// Warns of what belongs to the keys of calls, where no call has a key.
pub(super) fn check_keys(settings: &Settings, table: &Section<'_>) {
    if settings.gateway.trust.contains(&TrustedHeader::Key) {
        return;
    }
    let text = "it has no effect: gateway.trust does not name \"key\"";
    for (name, config) in &settings.dependencies {
        let by_header = match config.kind {
            Some(DependencyKind::Model) => config
                .model
                .as_ref()
                .is_some_and(|model| model.keys_by == ModelKeys::Header),
            Some(kind) => kind.is_http() || kind.is_mcp(),
            None => false,
        };
        // Messages of a queue have keys of their own.
        let mut consumers = settings.consumers.values();
        if !by_header || consumers.any(|one| one.dependency == *name) {
            continue;
        }
        // A file that names each default, as the one that ships does, says nothing.
        if config.settings.keys != KeySettings::default() {
            table.warn(&format!("{name}.keys"), text.to_owned());
        }
        if config.fleet.keys != KeySharing::default() {
            table.warn(&format!("{name}.fleet.keys"), text.to_owned());
        }
        if config.model.is_some() {
            table.warn(&format!("{name}.keys_by"), text.to_owned());
        }
    }
}

/// Warns about fallbacks that cannot answer, once all dependencies are known.
pub(super) fn check_fallbacks(
    dependencies: &BTreeMap<String, DependencyConfig>,
    table: &Section<'_>,
) {
    let is_mcp = |config: &DependencyConfig| {
        let kind = config.kind;
        kind.map(|kind| matches!(kind, DependencyKind::McpStdio | DependencyKind::McpHttp))
    };
    for (owner, config) in dependencies {
        for (index, fallback) in config.fallbacks.iter().enumerate() {
            let FallbackKind::Dependency { name, .. } = &fallback.kind else {
                continue;
            };
            let key = format!("{owner}.fallback[{index}]");
            let says_writes = table.is_given(&format!("{key}.writes"));
            let is_model = config.model.is_some();
            if !fallback.writes && !says_writes && config.kind.is_some() && !is_model {
                let text = "it serves no writes, such as POST: set writes = true if it may, or \
                            writes = false to keep it so";
                table.warn(&format!("{key}.name"), text.to_owned());
            }
            let other = dependencies.get(name).and_then(is_mcp);
            if let (Some(own), Some(other)) = (is_mcp(config), other)
                && own != other
            {
                let text = "it never serves: one of the two is an MCP server, the other is not";
                table.warn(&format!("{key}.name"), text.to_owned());
            }
        }
    }
}

fn check_repeats(section: &Section<'_>, config: &DependencyConfig) {
    if !config.idempotent.is_empty() {
        return;
    }
    if config.settings.retry.max_attempts.get() > 1 {
        let text = "only calls that were not executed are tried again: nothing is idempotent, see \
                    the key idempotent";
        section.warn("retry.max_attempts", text.to_owned());
    }
    if config.settings.hedge.is_some() {
        let text = "it has no effect: nothing is idempotent, see the key idempotent";
        section.warn("hedge.delay", text.to_owned());
    }
}

/// Warns of methods that no request has.
fn check_methods(section: &Section<'_>, config: &DependencyConfig) {
    if !section.is_given("idempotent") {
        return;
    }
    for given in &config.idempotent {
        if METHODS.contains(&given.as_str()) {
            continue;
        }
        let upper = given.to_ascii_uppercase();
        let near = nearest_word(&upper, METHODS.iter().copied());
        let text = match near {
            Some(near) if near == upper => {
                format!(
                    "{given} is no method of a request: they are in capitals, did you mean {near}?"
                )
            }
            Some(near) => format!("{given} is no known method, did you mean {near}?"),
            None => format!("{given} is no known method, such as GET or PUT"),
        };
        section.warn("idempotent", text);
    }
}

/// Warns of a server's command line that is one text: it would be the name of a program with blanks in it.
fn check_command(section: &Section<'_>, config: &DependencyConfig) {
    let Some(mcp) = &config.mcp else {
        return;
    };
    let is_line = mcp.command.contains(' ') && mcp.args.is_empty();
    if is_line && !std::path::Path::new(&mcp.command).exists() {
        let text = "all of it is taken for the name of one program: the program alone belongs \
                    here, and its arguments into args, such as command = \"npx\", args = [\"-y\", \
                    \"a-server\"]";
        section.warn("command", text.to_owned());
    }
}

fn check_kind(section: &Section<'_>, config: &DependencyConfig, kind: DependencyKind) {
    let has_address = kind.is_http() || kind == DependencyKind::McpHttp;
    if config.url.is_some() && !has_address {
        let text = "it has no effect with this kind, which has no address";
        section.warn("url", text.to_owned());
    }
    match kind {
        DependencyKind::McpGroup => check_group(section, "a group"),
        DependencyKind::Pool => check_group(section, "a pool"),
        _ => {}
    }
    if config.credentials.is_some() {
        let text = "it has no effect: only a program with its own code uses it";
        section.warn("credentials", text.to_owned());
    }
    if config.settings.fallback_only && section.has("retry") {
        let text = "it has no effect on a dependency that is never called";
        section.warn("fallback_only", text.to_owned());
    }
}

/// Warns of the policy of a group or a pool, which makes no calls of its own.
fn check_group(section: &Section<'_>, what: &str) {
    let keys = [
        "breaker",
        "timeout",
        "retry",
        "hedge",
        "rate_limit",
        "throttle",
        "bulkhead",
        "workers",
        "classify",
        "health",
        "keys",
        "chaos",
        "when_all_down",
        "idempotent",
        "fallback",
        "fallback_only",
        "override",
    ];
    for key in keys.iter().filter(|key| section.has(key)) {
        let text = format!("it has no effect on {what}, whose members have their own");
        section.warn(key, text);
    }
}

fn check_retry(section: &Section<'_>, config: &DependencyConfig) {
    let retry = &config.settings.retry;
    if retry.max_attempts.get() == 1 && !section.is_given("retry.max_attempts") {
        let others = [
            "retry.backoff.base",
            "retry.backoff.factor",
            "retry.backoff.max",
            "retry.backoff.jitter",
            "retry.budget",
            "retry.budget.ratio",
            "retry.budget.floor_per_second",
            "retry.respect_retry_after",
            "retry.on_open",
            "retry.on",
        ];
        for key in others.iter().filter(|key| section.is_given(key)) {
            let text = "it has no effect: retry.max_attempts is 1";
            section.warn(key, text.to_owned());
        }
        return;
    }
    if retry.max_attempts.get() > 1 && retry.budget.is_none() {
        let text = "without a budget, retries multiply the load on a dependency that fails";
        section.warn("retry.budget", text.to_owned());
    }
    if retry.max_attempts.get() > 1 && !retry.respect_retry_after {
        let text = "retries come earlier than the dependency asks for";
        section.warn("retry.respect_retry_after", text.to_owned());
    }
}

fn check_breaker(section: &Section<'_>, config: &DependencyConfig) {
    let breaker = &config.settings.breaker;
    let rates = breaker.failure_rate.is_some() || breaker.slow_rate.is_some();
    let runs = breaker.failure_threshold.is_some() || breaker.consecutive_failures.is_some();
    if !rates && !runs {
        let text = "the breaker never opens: no rule is left";
        section.warn("breaker.failure_threshold", text.to_owned());
    }
    if config.settings.classify.failure.0.is_empty() {
        let text = "the breaker never opens: nothing counts as a failure";
        section.warn("classify.failure", text.to_owned());
    }
    let given = |key: &str| section.is_given(key);
    let never_slow = breaker.slow_call.is_some() && breaker.slow_rate.is_none();
    if never_slow && given("breaker.slow_call") {
        let text = "it has no effect without breaker.slow_rate";
        section.warn("breaker.slow_call", text.to_owned());
    }
    // The default is written out in many files.
    if !rates && given("breaker.minimum_calls") && breaker.minimum_calls != 20 {
        let text = "it has no effect without breaker.failure_rate or breaker.slow_rate";
        section.warn("breaker.minimum_calls", text.to_owned());
    }
}

/// Warns of limits that a call of a tool does not have.
fn check_tool_timeouts(section: &Section<'_>, timeout: &TimeoutSettings) {
    let default = TimeoutSettings::default();
    for (key, limit, usual) in [
        ("connect", timeout.connect, default.connect),
        ("first_byte", timeout.first_byte, default.first_byte),
        ("idle", timeout.idle, default.idle),
        ("keep", timeout.keep, default.keep),
    ] {
        let key = format!("timeout.{key}");
        if limit != usual && section.is_given(&key) {
            let text = "it has no effect on an MCP server: a call has timeout.attempt and \
                        timeout.total, a start has start_timeout";
            section.warn(&key, text.to_owned());
        }
    }
}

/// Warns of a limit that another one always ends first.
fn check_timeouts(section: &Section<'_>, config: &DependencyConfig) {
    let timeout = &config.settings.timeout;
    if matches!(
        config.kind,
        Some(DependencyKind::McpStdio | DependencyKind::McpHttp)
    ) {
        return check_tool_timeouts(section, timeout);
    }
    let is_http = config.kind.is_some_and(DependencyKind::is_http);
    if is_http
        && timeout.keep.is_some_and(|keep| keep > MAX_CONNECTION_AGE)
        && section.is_given("timeout.keep")
    {
        let most = humantime::format_duration(MAX_CONNECTION_AGE);
        let text =
            format!("it has no effect above {most}: no connection serves new calls for longer");
        section.warn("timeout.keep", text);
    }
    let whole = [("total", timeout.total)];
    // The attempt ends with the head of an answer; what flows has `idle` and `total`.
    let each = [("attempt", timeout.attempt), ("total", timeout.total)];
    // A file that names the default, as the one that ships does, says nothing.
    let idle = timeout
        .idle
        .filter(|_| timeout.idle != TimeoutSettings::default().idle);
    let inner = [
        ("connect", timeout.connect, &each[..]),
        ("first_byte", timeout.first_byte, &each),
        ("idle", idle, &whole),
    ];
    for (key, limit, outer) in inner {
        let path = format!("timeout.{key}");
        let Some(limit) = limit.filter(|_| section.is_given(&path)) else {
            continue;
        };
        let shorter = outer.iter().find_map(|(name, other)| {
            let other = (*other)?;
            (other < limit).then_some((name, other))
        });
        if let Some((name, other)) = shorter {
            let other = humantime::format_duration(other);
            let text = format!("it has no effect: timeout.{name} is shorter, {other}");
            section.warn(&path, text);
        }
    }
}

/// Warns of fallbacks that are never reached, and of what they can never do.
fn check_own_fallbacks(section: &Section<'_>, config: &DependencyConfig) {
    let all = &config.fallbacks;
    // An entry with a problem has no place in the list.
    if section.list_len("fallback") != all.len() {
        return;
    }
    for (index, fallback) in all.iter().enumerate() {
        let is_cache = matches!(fallback.kind, FallbackKind::StaleCache { .. });
        let key = format!("fallback[{index}].writes");
        if is_cache && fallback.writes && section.is_given(&key) {
            let text = "it has no effect: a cache keeps no answers to writes";
            section.warn(&key, text.to_owned());
        }
        let before = all.iter().take(index);
        let hiding = before.enumerate().find(|(_, other)| {
            let answers_all = fallback.on.iter().all(|on| other.on.contains(on));
            let is_fixed = matches!(other.kind, FallbackKind::Fixed { .. });
            is_fixed && answers_all && (other.writes || !fallback.writes)
        });
        if let Some((first, _)) = hiding {
            let text =
                format!("it is never reached: fallback[{first}] is fixed, and always answers");
            section.warn(&format!("fallback[{index}].kind"), text);
        }
    }
}

fn check_limits(section: &Section<'_>, config: &DependencyConfig) {
    let settings = &config.settings;
    let timeout = &settings.timeout;
    // Without the others, the limit for the head of a response is one too.
    let is_http = config.kind.is_some_and(DependencyKind::is_http);
    let has_head_limit = is_http && timeout.first_byte.is_some();
    if timeout.attempt.is_none() && timeout.total.is_none() && !has_head_limit {
        let text = "a call that hangs is never ended: timeout.attempt and timeout.total are off";
        section.warn("timeout.total", text.to_owned());
    }
    if settings.bulkhead.max_queue > 0
        && settings.bulkhead.max_wait == Duration::ZERO
        && section.is_given("bulkhead.max_queue")
    {
        let text = "it has no effect: bulkhead.max_wait is 0";
        section.warn("bulkhead.max_queue", text.to_owned());
    }
    if settings.bulkhead.max_queue == 0
        && !settings.bulkhead.max_wait.is_zero()
        && section.is_given("bulkhead.max_wait")
    {
        let text = "it has no effect: bulkhead.max_queue is 0, so no call waits";
        section.warn("bulkhead.max_wait", text.to_owned());
    }
    if let Some(set) = &settings.configured_override {
        let text = match set.mode {
            OverrideMode::ForcedOpen => "every call is refused, after each start too",
            OverrideMode::Disabled => "nothing is measured and nothing is refused",
            OverrideMode::Shadow => "failures are measured only, and nothing is refused",
        };
        section.warn("override.mode", text.to_owned());
    }
    if settings.chaos.is_some() {
        let text = "faults are made on purpose";
        section.warn("chaos", text.to_owned());
    }
}
