//! Collects the layers, merges them, and reads the result.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Config, Environment as EnvironmentSource, Map, Source as _, Value};

use super::dotenv::{self, DotEnvContent};
use super::empty_variables;
use super::layer_files::{self, is_environment, is_missing};
use super::problem::{ConfigError, Problem, Warning};
use super::source::{CollectedValues, LayerRank, SingleValue, ValueOrigin, read_toml};
use super::variable_names::{ENVIRONMENT, PREFIX, too_large, unknown};
use super::variable_spelling::FileNames;
use super::{Settings, otel, read, table_lists};

type Layer = Result<Map<String, Value>, config::ConfigError>;

/// Reads a configuration from its layers.
///
/// By default: `config/default.toml`, `config/{environment}.toml` and `.env`, each if it exists,
/// then the process environment. Of `.env`, only the lines that begin with `BREAKERBOX` are read.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Loader {
    bare: bool,
    dir: Option<PathBuf>,
    needs_default: bool,
    environment: Option<String>,
    dotenv: Option<PathBuf>,
    texts: Vec<String>,
    embedded: Option<&'static str>,
    simulates: bool,
    variables: Option<Vec<(String, String)>>,
    flags: Vec<(String, String)>,
}

impl Loader {
    /// Reads nothing from the machine: no directory, no `.env`, no process environment. Only
    /// [`Loader::toml`], [`Loader::env_vars`] and [`Loader::flag`] add values.
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Sets the directory of the files, `.env` among them; it must exist.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Requires that the directory set by [`Loader::dir`] has a file `default.toml`, as the command
    /// does: without it, a misspelt directory would read as an empty configuration.
    pub fn require_default_file(mut self) -> Self {
        self.needs_default = true;
        self
    }

    /// Sets the environment, such as `production`; its file must exist. Overrides `BREAKERBOX_ENV`.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// Sets the file to read as `.env`; it must exist. The default is the one in the directory set
    /// by [`Loader::dir`], else the one in the working directory. On Unix a file that another user
    /// owns or may write is ignored, with a warning.
    pub fn dotenv(mut self, path: impl Into<PathBuf>) -> Self {
        self.dotenv = Some(path.into());
        self
    }

    /// Adds TOML text, above the files and below `.env`. May be called several times.
    pub fn toml(mut self, text: impl Into<String>) -> Self {
        self.texts.push(text.into());
        self
    }

    /// Sets TOML text that is the lowest layer in development, if there is no file and no variable
    /// that sets a dependency's kind. In other environments that is a problem.
    #[cfg(feature = "cli")]
    pub(crate) fn embedded(mut self, text: &'static str) -> Self {
        self.embedded = Some(text);
        self
    }

    /// Reads TOML text as the lowest layer in every environment, in place of the files.
    #[cfg(feature = "cli")]
    pub(crate) fn simulating(mut self, text: &'static str) -> Self {
        self.embedded = Some(text);
        self.simulates = true;
        self
    }

    /// Sets the variables, instead of the process environment.
    pub fn env_vars<K, V>(mut self, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: Into<String>,
        V: Into<String>,
    {
        let variables = variables.into_iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        self.variables = Some(variables.collect());
        self
    }

    /// Sets one key, above all other layers: `flag("gateway.bind", "127.0.0.1:8080")`.
    pub fn flag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.flags.push((key.into(), value.into()));
        self
    }

    /// Reads, merges and validates everything. May be called again after changes.
    ///
    /// # Errors  [`ConfigError`] with all problems at once; there is no partial result.
    /// # Source  Rule CFG-1 in docs/rules.md.
    pub fn load(&self) -> Result<Settings, ConfigError> {
        let mut problems = Vec::new();
        let around = self.surroundings(&mut problems);
        let mut sources = self.sources_in(&around);
        if around.dotenv.is_empty() {
            // It was not there, or it has nothing of ours.
            let dotenv = self.dotenv_path();
            sources.files.retain(|file| *file != dotenv);
        }

        let dotenv = self.dotenv_path().display().to_string();
        let in_file = |name: &str| format!("{dotenv}: {name}");
        let mut warnings = around.warnings;
        let (dotenv, process) = (&around.dotenv, &around.variables);
        let found = (&mut problems, &mut warnings);
        empty_variables::report((dotenv, &in_file), (process, &variable), found);
        #[cfg(feature = "gateway")]
        let proxies = around.variables.clone();
        let mut layers = standard(&around.dotenv, in_file);
        layers.extend(standard(&around.variables, variable));
        let named = around.named.is_some();
        let mut found = LayerFindings {
            problems: &mut problems,
            warnings: &mut warnings,
        };
        let of_files = self.read_files(&sources.environment, named, &mut found);
        // A file that has just come or gone is not to be mixed with the embedded one.
        let has_read = of_files.len() > self.texts.len();
        let names = FileNames::of(of_files.iter().flatten());
        let dependencies = names.dependencies();
        warnings.extend(unknown(&around.dotenv, in_file, &dependencies));
        warnings.extend(unknown(&around.variables, variable, &dependencies));
        layers.extend(of_files);
        let place = |name: &str| ValueOrigin::new(LayerRank::DotEnv, in_file(name));
        layers.extend(variables_of(around.dotenv, (place, &names), &mut problems));
        let place = |name: &str| ValueOrigin::new(LayerRank::Environment, variable(name));
        layers.extend(variables_of(
            around.variables,
            (place, &names),
            &mut problems,
        ));
        for (key, text) in &self.flags {
            let origin = ValueOrigin::new(LayerRank::Flag, format!("flag {key}"));
            let (key, text) = (key.clone(), text.clone());
            layers.extend(single(key, text, origin, &mut problems));
        }
        if let Some(text) = self.embedded
            && !has_read
            && !self.has_files(&sources.environment)
            && (self.simulates || !layers.iter().flatten().any(sets_a_kind))
        {
            let folder = self.folder();
            if !self.simulates && !is_missing(folder) {
                // EDGE-7: what is there was meant for something, and nothing stands in for it.
                problems.push(layer_files::no_default_here(folder, &sources.environment));
            } else if sources.environment == "development" || self.simulates {
                let name = "the built-in default.toml";
                let embedded = read_toml(LayerRank::BuiltIn, name, text);
                layers.insert(0, Ok(taken(embedded, &mut problems)));
            } else {
                let environment = &sources.environment;
                problems.push(layer_files::no_configuration(environment, folder));
            }
        }
        if self.finds_nothing(&layers) {
            // EDGE-7: a program that is started in another folder would run with defaults alone.
            warnings.push(Warning {
                key: String::new(),
                text: "nothing is configured: there is neither a file nor a variable".to_owned(),
                origin: self.folder().display().to_string(),
            });
        }
        // CFG-1: the layers are merged in this order, and a later one wins.
        let root = merge(layers, &mut problems);
        let mut settings = read(&root, &sources, problems, warnings)?;
        settings.warnings.extend(self.relative_state(&settings));
        #[cfg(feature = "gateway")]
        let settings = super::proxy_variables::apply(settings, &proxies);
        Ok(settings)
    }

    /// Returns the warning of a relative `admin.state` beside a folder that was named.
    fn relative_state(&self, settings: &Settings) -> Option<Warning> {
        let dir = self.dir.as_ref()?;
        let state = settings.admin.state.as_ref()?;
        // HLT-3: started in another folder, the process would not find its orders.
        state.is_relative().then(|| Warning {
            key: "admin.state".to_owned(),
            text: "this path is relative to the folder that the process is started in, not to that of \
                   the configuration: started elsewhere, it does not find its orders"
                .to_owned(),
            origin: dir.display().to_string(),
        })
    }

    /// Returns the warning of a configuration that lies beside the place of the usual folder.
    fn unread_default(&self) -> Option<Warning> {
        // EDGE-7: a file that is there was meant to be read.
        let looks = self.has_folder() && self.dir.is_none() && is_missing(self.folder());
        let beside = self.folder().with_file_name("default.toml");
        looks.then(|| layer_files::unread(&beside)).flatten()
    }

    /// Returns true if the usual places were looked at, and none of them has anything.
    fn finds_nothing(&self, layers: &[Layer]) -> bool {
        let looks = self.has_folder() && self.dir.is_none();
        let has_values = |layer: &Layer| !matches!(layer, Ok(values) if values.is_empty());
        looks && self.texts.is_empty() && !layers.iter().any(has_values)
    }

    /// Returns the current sources: the environment and the files.
    #[must_use]
    pub fn sources(&self) -> Sources {
        // Loading reports all problems.
        self.sources_in(&self.surroundings(&mut Vec::new()))
    }

    fn sources_in(&self, around: &Environment) -> Sources {
        let environment = around.named.clone();
        let environment = environment.unwrap_or_else(|| "development".to_owned());
        let mut files = Vec::new();
        if self.has_folder() {
            let default = self.folder().join("default.toml");
            let own = self.folder().join(format!("{environment}.toml"));
            files.push(default);
            if is_environment(&environment) && !files.contains(&own) {
                files.push(own);
            }
        }
        if self.has_dotenv() {
            files.push(self.dotenv_path());
        }
        Sources { environment, files }
    }

    /// Reads the variables, and the name of the environment if they contain it.
    fn surroundings(&self, problems: &mut Vec<Problem>) -> Environment {
        let DotEnvContent {
            variables: dotenv,
            problems: found,
            warnings,
        } = self.read_dotenv();
        problems.extend(found);
        let variables = match &self.variables {
            Some(variables) => variables.clone(),
            None if self.bare => Vec::new(),
            None => process_variables(),
        };
        let in_layer = |layer: &[(String, String)]| {
            let named = layer.iter().rev().find(|(name, _)| name == ENVIRONMENT);
            named
                .map(|(_, value)| value.clone())
                .filter(|value| !value.is_empty())
        };
        let named = self.environment.clone();
        let named = named
            .or_else(|| in_layer(&variables))
            .or_else(|| in_layer(&dotenv));
        Environment {
            dotenv,
            variables,
            named,
            warnings,
        }
    }

    fn folder(&self) -> &Path {
        self.dir.as_deref().unwrap_or(Path::new("config"))
    }

    /// Returns true if the folder was named, and is not the usual one.
    #[cfg(feature = "cli")]
    pub(crate) fn names_folder(&self) -> bool {
        self.dir.is_some()
    }

    fn has_folder(&self) -> bool {
        self.dir.is_some() || !(self.bare || self.simulates)
    }

    /// Returns the path of `.env`: within the named directory, else beside `config`.
    fn dotenv_path(&self) -> PathBuf {
        // EDGE-7: never from a working directory that has nothing to do with the configuration.
        let own = || self.dir.as_deref().map(|dir| dir.join(".env"));
        let named = self.dotenv.clone().or_else(own);
        named.unwrap_or_else(|| PathBuf::from(".env"))
    }

    /// Given variables replace the whole environment, including `.env`.
    fn has_dotenv(&self) -> bool {
        // A path that is no folder is one problem, not two.
        let has_place = self.dir.as_ref().is_none_or(|dir| dir.is_dir());
        self.dotenv.is_some() || (self.variables.is_none() && !self.bare && has_place)
    }

    /// Returns true if there is any file of the configuration, read or not.
    fn has_files(&self, environment: &str) -> bool {
        if !self.has_folder() {
            return false;
        }
        let names = ["default", environment];
        let mut paths = names
            .iter()
            .map(|name| self.folder().join(format!("{name}.toml")));
        paths.any(|path| !is_missing(&path))
    }

    fn read_dotenv(&self) -> DotEnvContent {
        if !self.has_dotenv() {
            return DotEnvContent::default();
        }
        dotenv::read(&self.dotenv_path(), self.dotenv.is_some())
    }

    fn read_files(
        &self,
        environment: &str,
        is_named: bool,
        found: &mut LayerFindings<'_>,
    ) -> Vec<Layer> {
        let LayerFindings { problems, warnings } = found;
        warnings.extend(self.unread_default());
        let dir = self.folder();
        let is_folder = self.has_folder() && dir.is_dir();
        if self.dir.is_some() && !dir.is_dir() {
            problems.push(layer_files::no_folder(dir));
        }
        if !is_environment(environment) {
            problems.push(layer_files::bad_environment(environment));
            return Vec::new();
        }
        let own = dir.join(format!("{environment}.toml"));
        if is_folder && is_missing(&own) {
            match is_named {
                true => problems.push(layer_files::no_environment(environment, &own)),
                false => warnings.extend(layer_files::nearly_named(environment, &own)),
            }
        }
        let default = dir.join("default.toml");
        if self.needs_default && self.dir.is_some() && is_folder && is_missing(&default) {
            problems.push(layer_files::no_default(&default));
        }
        let files = [
            (default, LayerRank::DefaultFile),
            (own, LayerRank::EnvironmentFile),
        ];
        let mut layers = Vec::new();
        for (path, rank) in files.into_iter().filter(|_| self.has_folder()) {
            match layer_files::read(&path) {
                Ok(None) => {}
                Ok(Some(text)) => {
                    warnings.extend(layer_files::foreign(&path));
                    let name = path.to_string_lossy();
                    layers.push(Ok(taken(read_toml(rank, &name, &text), problems)));
                }
                Err(problem) => problems.push(*problem),
            }
        }
        for text in &self.texts {
            let read = read_toml(LayerRank::Text, "the given text", text);
            layers.push(Ok(taken(read, problems)));
        }
        layers
    }
}

/// Returns a layer; one with a problem is empty.
fn taken(
    layer: Result<Map<String, Value>, Box<Problem>>,
    problems: &mut Vec<Problem>,
) -> Map<String, Value> {
    layer.unwrap_or_else(|problem| {
        problems.push(*problem);
        Map::new()
    })
}

/// Sources of a [`Loader`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sources {
    /// The environment, such as `production`.
    pub environment: String,
    /// The relevant files, lowest layer first; they need not exist.
    pub files: Vec<PathBuf>,
}

impl Sources {
    /// Returns the files that exist and can be read.
    pub fn found(&self) -> impl Iterator<Item = &Path> {
        let files = self.files.iter().map(PathBuf::as_path);
        files.filter(|path| path.is_file() && std::fs::File::open(path).is_ok())
    }
}

/// The problems and warnings that the files of the layers have.
struct LayerFindings<'l> {
    problems: &'l mut Vec<Problem>,
    warnings: &'l mut Vec<Warning>,
}

/// Variables that a loader reads outside of the directory.
struct Environment {
    dotenv: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    /// The environment, if it was named.
    named: Option<String>,
    warnings: Vec<Warning>,
}

/// Returns true if a layer of single keys sets the kind of a dependency.
fn sets_a_kind(layer: &Map<String, Value>) -> bool {
    layer.keys().any(|key| {
        let parts: Vec<&str> = key.split('.').collect();
        matches!(parts[..], ["dependencies", _, "kind"])
    })
}

fn process_variables() -> Vec<(String, String)> {
    // A value that is not text stays visible, as an invalid one.
    let text = |os: OsString| os.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

fn variable(name: &str) -> String {
    format!("environment variable {name}")
}

/// Returns the layer of OpenTelemetry's variables, below every file.
fn standard(variables: &[(String, String)], place: impl Fn(&str) -> String) -> Vec<Layer> {
    let all = otel::standard(variables).into_iter();
    all.map(|(name, key, text)| {
        let origin = ValueOrigin::new(LayerRank::Standard, place(&name));
        let key = format!("otel.{key}");
        SingleValue { key, text, origin }.collect()
    })
    .collect()
}

/// Converts variables to layers of one key each, sorted by name. So the result does not depend on
/// the order of the environment. `names`: those of the files.
fn variables_of(
    variables: Vec<(String, String)>,
    (origin, names): (impl Fn(&str) -> ValueOrigin, &FileNames),
    problems: &mut Vec<Problem>,
) -> Vec<Layer> {
    let sorted: BTreeMap<String, String> = variables.into_iter().collect();
    let ours = sorted
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX));
    let mut layers = Vec::new();
    for (name, text) in ours {
        let one = Map::from_iter([(name.clone(), text.clone())]);
        let reader = EnvironmentSource::with_prefix("BREAKERBOX")
            .separator("__")
            .ignore_empty(true);
        match reader.source(Some(one)).collect() {
            Ok(keys) => {
                let key = keys.into_keys().next();
                let key = key.map(|key| names.spelled(&key));
                layers.extend(key.and_then(|key| single(key, text, origin(&name), problems)));
            }
            Err(error) => layers.push(Err(error)),
        }
    }
    layers
}

/// Converts one key to a layer, unless its name is too large to be read.
fn single(
    key: String,
    text: String,
    origin: ValueOrigin,
    problems: &mut Vec<Problem>,
) -> Option<Layer> {
    if let Some((reason, allowed)) = too_large(&key) {
        let place: String = origin.place.chars().take(200).collect();
        problems.push(Problem::of_layer(reason, allowed, &place));
        return None;
    }
    if table_lists::is_table_list(&key) {
        return match table_lists::read(&key, &text, &origin) {
            Ok(tables) => Some(Ok(Map::from_iter([(key, tables)]))),
            Err(problem) => {
                problems.push(*problem);
                None
            }
        };
    }
    Some(SingleValue { key, text, origin }.collect())
}

fn merge(layers: Vec<Layer>, problems: &mut Vec<Problem>) -> Value {
    let mut builder = Config::builder();
    for layer in layers {
        match layer {
            Ok(values) => builder = builder.add_source(CollectedValues(values)),
            Err(other) => problems.push(Problem::of_layer(
                other,
                "a readable layer",
                "configuration",
            )),
        }
    }
    match builder.build() {
        Ok(config) => config.cache,
        Err(error) => {
            problems.push(Problem::of_layer(
                error,
                "layers that fit together",
                "configuration",
            ));
            Value::new(None, Map::<String, Value>::new())
        }
    }
}
