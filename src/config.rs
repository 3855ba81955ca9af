//! The configuration: read from layers, validated as a whole, and passed on as usable settings.
//!
//! Layers, each overriding the ones before: built-in, the standard variables of OpenTelemetry for
//! `otel`, `config/default.toml`, `config/{environment}.toml`, `.env`, the environment
//! (`BREAKERBOX__SECTION__KEY`), flags. All problems are reported at once, each with its key, its
//! value, the allowed values and the layer (rule CFG-1). Nothing here starts anything.

// layers
mod dotenv;
mod empty_variables;
mod loader;
mod source;
mod table_lists;
mod variable_names;
mod variable_spelling;

mod layer_files;
mod toml_lines;
mod toml_mistake;

// values
mod credential_names;
mod foreign_names;
mod known_keys;
mod masking;
mod misplaced_value;
mod number_text;
mod section;
mod span_text;
mod unknown_key;
mod url;
mod value_type;

// sections of the process
mod admin;
pub(crate) mod consumer;
mod fleet;
mod gateway;
mod gateway_tls;
mod otel;
mod per_caller;
mod recorder;
mod reload;

// sections of a dependency
mod caller_auth;
mod dependency;
mod kind;
mod links;
mod mcp;
mod mcp_group;
mod mcp_tools;
mod model;
mod outbound;
mod pool;
mod probe;
#[cfg(feature = "gateway")]
mod proxy_variables;
mod upstream;

mod backoff;
mod breaker;
mod bulkhead;
mod chaos;
mod classify;
mod configured_override;
mod dangerous_settings;
mod dead_settings;
mod fallback;
mod fallback_targets;
mod health;
mod hedge;
mod keys;
mod odd_secret;
mod rate_limit;
mod retry;
mod throttle;
mod timeout;
mod token_limit;
mod upstream_tls;
mod workers;

// other formats
mod client_import;
mod schema;

#[cfg(all(any(test, fuzzing), feature = "cli"))]
pub(crate) mod fuzzing;

pub mod credentials;
mod problem;
mod secret;
mod secret_names;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::config::Value;

pub use crate::model_api::Api as ModelApi;
pub use admin::AdminConfig;
pub use caller_auth::{AuthChoice, CallerAuth, JwtRules, KeySource};
pub use client_import::{ImportError, ImportedConfig, import_clients};
pub use consumer::ConsumerConfig;
#[cfg(feature = "gateway")]
pub(crate) use credential_names::{holds_credentials, is_credential_name};
pub use dependency::DependencyConfig;
pub use fallback::{FallbackConfig, FallbackKind, FallbackOn};
pub use fleet::{DependencyFleet, FleetConfig, FleetTls, KeySharing, PauseSharing, ProbeSharing};
#[cfg(feature = "cli")]
pub(crate) use gateway::may_create;
pub use gateway::{AccessLogTarget, GatewayConfig, TrustedHeader};
pub use gateway_tls::GatewayTls;
pub use kind::DependencyKind;
pub use loader::{Loader, Sources};
#[cfg(feature = "gateway")]
pub(crate) use masking::{is_sensitive, looks_secret};
pub use mcp::{CallerSessions, McpConfig};
pub use mcp_group::GroupMember;
pub use mcp_tools::{ToolRule, ToolRules};
pub use model::{ModelConfig, ModelKeys};
pub use otel::OtelConfig;
pub use outbound::OutboundConfig;
pub use per_caller::PerCallerConfig;
pub use pool::{PoolChoice, PoolConfig};
pub use probe::{ProbeConfig, StatusRange};
pub use problem::{ConfigError, Problem, Warning};
pub use recorder::RecorderConfig;
pub use reload::ReloadConfig;
pub use schema::schema;
pub use secret::Secret;
#[cfg(feature = "gateway")]
pub(crate) use secret_names::is_secret_name;
pub use span_text::parse_duration;
pub use token_limit::{TokenLimitConfig, TokensOf};
#[cfg(feature = "gateway")]
pub(crate) use upstream::MAX_CONNECTION_AGE;
pub use upstream::{HttpVersion, ProxyChoice, UpstreamConfig};
pub use upstream_tls::UpstreamTls;
#[cfg(any(feature = "gateway", feature = "admin"))]
pub(crate) use url::unix_socket;

use breakerbox_actors::nearest_word;
use section::{LoadReport, Section};
use source::LayerRank;

/// A validated configuration.
///
/// ```
/// use breakerbox::config::Settings;
///
/// let settings = Settings::loader()
///     .env_vars([("BREAKERBOX__DEPENDENCIES__WEB__BREAKER__RECOVERY_TIMEOUT", "10s")])
///     .toml("[dependencies.web.breaker]\nfailure_threshold = 3")
///     .load()?;
/// let breaker = &settings.dependencies["web"].settings.breaker;
/// assert_eq!(breaker.open.base.as_secs(), 10);
/// # Ok::<(), breakerbox::config::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// The environment that selected the file, such as `production`.
    pub environment: String,
    /// The data plane of the sidecar.
    pub gateway: GatewayConfig,
    /// The admin side of the sidecar.
    pub admin: AdminConfig,
    /// The recorder of call outcomes.
    pub recorder: RecorderConfig,
    /// Reloading of the configuration.
    pub reload: ReloadConfig,
    /// Export of traces and metrics.
    pub otel: OtelConfig,
    /// The fleet that this replica belongs to; `None` for none.
    pub fleet: Option<FleetConfig>,
    /// The dependencies by name.
    pub dependencies: BTreeMap<String, DependencyConfig>,
    /// The consumers of messages by name.
    pub consumers: BTreeMap<String, ConsumerConfig>,
    files: Vec<PathBuf>,
    effective: Vec<EffectiveValue>,
    warnings: Vec<Warning>,
}

/// One effective value, for `breakerbox check`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveValue {
    /// The full key.
    pub key: String,
    /// The value as given, or the default; a secret is `***`.
    pub value: String,
    /// The layer that set it.
    pub origin: String,
    /// True if no layer set it.
    pub is_default: bool,
    /// The whole value, where `value` hides a part of it; for a file of certificates or
    /// credentials, a hash of its contents.
    pub(crate) hidden: Option<Secret>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            environment: "development".to_owned(),
            gateway: GatewayConfig::default(),
            admin: AdminConfig::default(),
            recorder: RecorderConfig::default(),
            reload: ReloadConfig::default(),
            otel: OtelConfig::default(),
            fleet: None,
            dependencies: BTreeMap::new(),
            consumers: BTreeMap::new(),
            files: Vec::new(),
            effective: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Settings {
    /// Loads the layers from their default places, and logs the warnings.
    ///
    /// # Errors  [`ConfigError`] with all problems; show it and stop.
    pub fn load() -> Result<Self, ConfigError> {
        let settings = Self::loader().load()?;
        for warning in &settings.warnings {
            tracing::warn!("configuration: {warning}");
        }
        Ok(settings)
    }

    /// Returns a loader, to read the layers from other places.
    pub fn loader() -> Loader {
        Loader::default()
    }

    /// The files that were read, lowest layer first.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// All effective values including defaults, sorted by key.
    #[must_use]
    pub fn effective(&self) -> &[EffectiveValue] {
        &self.effective
    }

    /// Warnings about usable but suspicious values.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// All keys that can be set; `*` is the name of a dependency, `[0]` an index.
    #[must_use]
    pub fn keys() -> Vec<String> {
        let report = RefCell::new(LoadReport::default());
        read_root(&every_table(), "", &report);
        report.into_inner().asked.into_keys().collect()
    }
}

/// Returns a tree with each table that has a name of its own, so that every key is read.
fn every_table() -> Value {
    let table = |entries: Vec<(&str, Value)>| {
        let entries = entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        Value::new(None, entries.collect::<::config::Map<String, Value>>())
    };
    let fallback = Value::new(None, vec![table(Vec::new())]);
    let tools = table(vec![("*", table(Vec::new()))]);
    let any = table(vec![("fallback", fallback), ("tools", tools)]);
    let consumers = table(vec![("*", table(Vec::new()))]);
    let dependencies = table(vec![("*", any)]);
    table(vec![
        ("consumers", consumers),
        ("dependencies", dependencies),
    ])
}

/// Reads the merged tree. Fails if there is any problem.
fn read(
    root: &Value,
    sources: &Sources,
    found: Vec<Problem>,
    warnings: Vec<Warning>,
) -> Result<Settings, ConfigError> {
    let report = RefCell::new(LoadReport {
        problems: found,
        warnings,
        ..LoadReport::default()
    });
    let settings = read_root(root, &sources.environment, &report);
    let mut report = report.into_inner();
    if !report.problems.is_empty() {
        return Err(ConfigError::new(report.problems));
    }
    let mut warnings = std::mem::take(&mut report.warnings);
    warnings.extend(dangerous_settings::check_files(&report));
    Ok(Settings {
        environment: sources.environment.clone(),
        files: sources.found().map(Path::to_owned).collect(),
        effective: effective(report),
        warnings,
        ..settings
    })
}

/// Combines the given values and the defaults of the others.
fn effective(report: LoadReport) -> Vec<EffectiveValue> {
    let mut hidden = report.hidden;
    let defaults = report.defaults.into_iter().map(|(key, value)| {
        let default = (value, "built-in default".to_owned(), true);
        (key, default)
    });
    let given = report.given.into_iter();
    let given = given.map(|(key, (value, origin))| (key, (value, origin.place, false)));
    let all: BTreeMap<_, _> = defaults.chain(given).collect();
    let all = all.into_iter();
    all.map(|(key, (value, origin, is_default))| EffectiveValue {
        hidden: hidden.remove(&key),
        key,
        value,
        origin,
        is_default,
    })
    .collect()
}

fn read_root(root: &Value, environment: &str, report: &RefCell<LoadReport>) -> Settings {
    let mut section = Section::new("", Some(root), report);
    let gateway = gateway::read(section.section("gateway"));
    let admin = admin::read(section.section("admin"), &gateway);
    let fleet = section.section_if_given("fleet").and_then(fleet::read);
    let mut settings = Settings {
        gateway,
        admin,
        recorder: recorder::read(section.section("recorder")),
        reload: reload::read(section.section("reload")),
        otel: otel::read(section.section("otel")),
        fleet,
        dependencies: read_dependencies(&section.section("dependencies"), environment),
        ..Settings::default()
    };
    if settings.fleet.is_none() {
        dead_settings::check_fleet_parts(&section.section("dependencies"));
    }
    if let Some(fleet) = &settings.fleet {
        for dependency in settings.dependencies.values_mut() {
            if let Some(lease) = fleet::lease_of_probes(fleet, &dependency.fleet) {
                dependency.settings.breaker.half_open.lease = lease;
                if dependency.fleet.keys == KeySharing::Hashed {
                    dependency.settings.key_lease = lease;
                }
            }
        }
    }
    settings.consumers = consumer::read_all(
        &section.section("consumers"),
        &settings.dependencies,
        settings.fleet.is_some(),
    );
    dead_settings::check_keys(&settings, &section.section("dependencies"));
    dead_settings::check_sharing(
        settings.dependencies.iter(),
        settings.fleet.is_some(),
        &section.section("dependencies"),
    );
    let has_auth = settings.gateway.auth.is_some();
    mcp_group::check_auth(
        &settings.dependencies,
        has_auth,
        &section.section("dependencies"),
    );
    dangerous_settings::check(&settings, &section);
    section.finish();
    settings
}

fn read_dependencies(table: &Section<'_>, environment: &str) -> BTreeMap<String, DependencyConfig> {
    let names = table.names();
    let mut dependencies = BTreeMap::new();
    // A variable alone adds none of them.
    let is_of_files = |name: &&str| table.rank_of(name) < LayerRank::DotEnv;
    let others: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(is_of_files)
        .collect();
    for name in &names {
        if variable_names::is_named_too_early(table, name, &others) {
            continue;
        }
        let section = table.named(name);
        if !is_dependency_name(name) {
            let allowed =
                "a name of at most 64 lower-case letters, digits, _ and -, a letter first";
            let lower = name.trim().to_lowercase().replace([' ', '/', '.'], "-");
            let reason = match is_dependency_name(&lower) {
                true => format!("this name is not allowed, did you mean {lower}?"),
                false => "this name is not allowed".to_owned(),
            };
            table.conflict(name, reason, allowed);
        } else if section.origin().rank >= LayerRank::DotEnv && !section.has("kind") {
            // Most likely a typo in a variable: the new dependency would protect no calls.
            if let Some((owner, rest)) = variable_names::split(name, &others) {
                // The names of its keys are no mistake, so none of them is read.
                let (reason, allowed) = variable_names::one_underscore(owner, rest);
                section.conflict_here(&reason, &allowed);
                continue;
            }
            if let Some(meant) = variable_names::joined(&section, name, &others) {
                let (reason, allowed) = variable_names::one_too_many(meant);
                section.conflict_here(&reason, &allowed);
                continue;
            }
            if let Some(near) = nearest_word(name, others.iter().copied()) {
                let reason = format!("no file has this dependency, did you mean {near}?");
                section.conflict_here(&reason, "a dependency of the files, or to set its kind too");
            }
        }
        dependencies.insert(name.clone(), dependency::read(section, environment));
    }
    fallback_targets::check(&dependencies, table);
    mcp_group::check(&dependencies, table);
    pool::check(&dependencies, table);
    dead_settings::check_fallbacks(&dependencies, table);
    dead_settings::check_same_address(&dependencies, table);
    fallback_targets::trust_same_origin(&mut dependencies);
    dependencies
}

fn is_dependency_name(name: &str) -> bool {
    let plain = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-".contains(letter)
    };
    let any = name == "*";
    any || name.starts_with(|letter: char| letter.is_ascii_lowercase())
        && name.len() <= 64
        && name.chars().all(plain)
}
