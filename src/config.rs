//! The configuration: read from layers, checked as a whole, handed on as values that can work.
//!
//! Layers, the later one wins: built-in, `config/default.toml`, `config/{environment}.toml`,
//! `.env`, the environment (`BREAKERBOX__SECTION__KEY`), flags. Whatever is wrong is reported
//! at once with its key, its value, what is allowed and the layer (rule CFG-1). Nothing here
//! starts anything.

mod loader;
mod source;

mod section;
mod shape;

mod breaker;
mod dependency;
mod fallback;
mod policy;

mod problem;
mod secret;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ::config::Value;

pub use dependency::{
    Cause, ClassifyConfig, DependencyConfig, DependencyKind, EdgeTimeouts, RateLimitConfig,
};
pub use fallback::{FallbackConfig, FallbackKind, FallbackOn};
pub use loader::Loader;
pub use problem::{ConfigError, Problem};
pub use secret::Secret;

use section::{Report, Section, nearest};
use shape::{Shape, line};
use source::Rank;

/// A checked configuration.
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
    /// The environment whose file was read, such as `production`.
    pub environment: String,
    /// The data plane of the sidecar.
    pub gateway: GatewayConfig,
    /// Its admin side.
    pub admin: AdminConfig,
    /// Every dependency by its name.
    pub dependencies: BTreeMap<String, DependencyConfig>,
    effective: Vec<EffectiveValue>,
}

/// Where the sidecar takes calls.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// The address to listen on.
    pub bind: SocketAddr,
}

/// Where the sidecar is watched and operated.
///
/// # Source  Rule SEC-1 in docs/rules.md.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdminConfig {
    /// The address to listen on; loopback unless it is set.
    pub bind: SocketAddr,
    /// What a change must be signed with; without it nothing can be changed.
    pub token: Option<Secret>,
}

/// One value that some layer gave, for `breakerbox check`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveValue {
    /// The full key.
    pub key: String,
    /// The value as given; a secret is `***`.
    pub value: String,
    /// The layer that won.
    pub origin: String,
}

impl Default for Settings {
    fn default() -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            environment: "development".to_owned(),
            gateway: GatewayConfig {
                bind: loopback(7070),
            },
            admin: AdminConfig {
                bind: loopback(7071),
                token: None,
            },
            dependencies: BTreeMap::new(),
            effective: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads the layers from their usual places.
    ///
    /// # Errors  [`ConfigError`] with everything that is wrong; show it and stop.
    pub fn load() -> Result<Self, ConfigError> {
        Self::loader().load()
    }

    /// Reads the layers from places of your own.
    pub fn loader() -> Loader {
        Loader::default()
    }

    /// Every value that a layer gave, sorted by key. What is missing has its default.
    #[must_use]
    pub fn effective(&self) -> &[EffectiveValue] {
        &self.effective
    }

    /// Every key that can be set; `*` stands for the name of a dependency, `[0]` for an index.
    #[must_use]
    pub fn keys() -> Vec<String> {
        let table = |entries: Vec<(&str, Value)>| {
            let entries = entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value));
            Value::new(None, entries.collect::<::config::Map<String, Value>>())
        };
        let fallback = Value::new(None, vec![table(Vec::new())]);
        let any = table(vec![("fallback", fallback)]);
        let root = table(vec![("dependencies", table(vec![("*", any)]))]);
        let report = RefCell::new(Report::default());
        read_root(&root, &report);
        report.into_inner().asked.into_iter().collect()
    }
}

/// Reads the merged tree; fails when anything at all was wrong.
fn read(root: &Value, environment: String, found: Vec<Problem>) -> Result<Settings, ConfigError> {
    let report = RefCell::new(Report {
        problems: found,
        ..Report::default()
    });
    let settings = read_root(root, &report);
    let report = report.into_inner();
    if !report.problems.is_empty() {
        return Err(ConfigError::new(report.problems));
    }
    let effective = report.given.into_iter().map(|(key, (value, origin))| {
        let origin = origin.place;
        EffectiveValue { key, value, origin }
    });
    Ok(Settings {
        environment,
        effective: effective.collect(),
        ..settings
    })
}

fn read_root(root: &Value, report: &RefCell<Report>) -> Settings {
    let default = Settings::default();
    let mut section = Section::new("", Some(root), report);
    let mut gateway = section.section("gateway");
    let gateway_bind = gateway.get("bind", &address());
    gateway.finish();
    let mut admin = section.section("admin");
    let admin_bind = admin.get("bind", &address());
    let token = Shape {
        secret: true,
        ..line("a text of at least 16 letters", |token| token.len() >= 16)
    };
    let token = admin.get("token", &token).map(Secret::new);
    let settings = Settings {
        gateway: GatewayConfig {
            bind: gateway_bind.unwrap_or(default.gateway.bind),
        },
        admin: AdminConfig {
            bind: admin_bind.unwrap_or(default.admin.bind),
            token,
        },
        dependencies: read_dependencies(&section.section("dependencies")),
        ..default
    };
    if settings.gateway.bind == settings.admin.bind && settings.admin.bind.port() != 0 {
        let reason = "the gateway listens there already";
        admin.conflict("bind", reason, "an address other than gateway.bind");
    }
    admin.finish();
    section.finish();
    settings
}

fn address() -> Shape<'static, SocketAddr> {
    let text = line("an address with a port, such as \"127.0.0.1:7070\"", |_| {
        true
    });
    text.map(|text| text.trim().parse().ok())
}

fn read_dependencies(table: &Section<'_>) -> BTreeMap<String, DependencyConfig> {
    let names = table.names();
    let mut dependencies = BTreeMap::new();
    for name in &names {
        let section = table.named(name);
        if !is_dependency_name(name) {
            let allowed =
                "a name of at most 64 lower-case letters, digits, _ and -, a letter first";
            table.conflict(name, "it cannot be called so", allowed);
        } else if section.origin().rank >= Rank::DotEnv && !section.has("kind") {
            // Most likely a slip of the pen in a variable, which would protect nobody.
            let others = names
                .iter()
                .filter(|other| *other != name && table.named(other).origin().rank < Rank::DotEnv);
            if let Some(near) = nearest(name, others.map(String::as_str)) {
                let reason = format!("no file has this dependency, did you mean {near}?");
                section.conflict_here(&reason, "a dependency of the files, or to set its kind too");
            }
        }
        dependencies.insert(name.clone(), dependency::read(section));
    }
    fallback::check(&dependencies, table);
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
