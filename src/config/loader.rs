//! Collects the layers, merges them, and reads the result.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Config, Environment as EnvironmentSource, File, Map, Source as _, Value};

use super::problem::{ConfigError, Problem};
use super::source::{CollectedValues, LayerRank, LinedToml, SingleValue, ValueOrigin};
use super::{Settings, otel, read};

/// Prefix of variables that set a key.
const PREFIX: &str = "BREAKERBOX__";
/// Variable that names the environment.
const ENVIRONMENT: &str = "BREAKERBOX_ENV";

/// Reads a configuration from its layers.
///
/// By default: `config/default.toml`, `config/{environment}.toml` and `.env`, each if it exists,
/// then the process environment.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Loader {
    bare: bool,
    dir: Option<PathBuf>,
    environment: Option<String>,
    dotenv: Option<PathBuf>,
    texts: Vec<String>,
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

    /// Sets the directory of the files; it must exist.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Sets the environment, such as `production`; its file must exist. Overrides `BREAKERBOX_ENV`.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// Sets the file to read as `.env`; it must exist.
    pub fn dotenv(mut self, path: impl Into<PathBuf>) -> Self {
        self.dotenv = Some(path.into());
        self
    }

    /// Adds TOML text, above the files and below `.env`. May be called several times.
    pub fn toml(mut self, text: impl Into<String>) -> Self {
        self.texts.push(text.into());
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
        let sources = self.sources_in(&around);

        let dotenv = self.dotenv_path();
        let place = |name: &str| format!("{}: {name}", dotenv.display());
        let mut layers = standard(&around.dotenv, place);
        layers.extend(standard(&around.variables, variable));
        layers.extend(self.read_files(&sources.environment, &around, &mut problems));
        let place = |name: &str| ValueOrigin::new(LayerRank::DotEnv, place(name));
        layers.extend(variables_of(around.dotenv, place));
        let place = |name: &str| ValueOrigin::new(LayerRank::Environment, variable(name));
        layers.extend(variables_of(around.variables, place));
        for (key, text) in &self.flags {
            let origin = ValueOrigin::new(LayerRank::Flag, format!("flag {key}"));
            if has_sane_indices(key) {
                let (key, text) = (key.clone(), text.clone());
                layers.push(SingleValue { key, text, origin }.collect());
            } else {
                let reason = "its index is invalid";
                problems.push(unreadable(reason, "an index from 0 to 999", &origin.place));
            }
        }
        // CFG-1: the layers are merged in this order, and a later one wins.
        let root = merge(layers, &mut problems);
        read(&root, &sources, problems)
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
        let dotenv = self.read_dotenv(problems);
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
        }
    }

    fn folder(&self) -> &Path {
        self.dir.as_deref().unwrap_or(Path::new("config"))
    }

    fn has_folder(&self) -> bool {
        self.dir.is_some() || !self.bare
    }

    fn dotenv_path(&self) -> PathBuf {
        self.dotenv.clone().unwrap_or_else(|| PathBuf::from(".env"))
    }

    /// Given variables replace the whole environment, including `.env`.
    fn has_dotenv(&self) -> bool {
        self.dotenv.is_some() || (self.variables.is_none() && !self.bare)
    }

    fn read_dotenv(&self, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
        let path = self.dotenv_path();
        if !self.has_dotenv() || (self.dotenv.is_none() && !path.exists()) {
            return Vec::new();
        }
        let place = path.display().to_string();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                problems.push(unreadable(error, "a file that can be read", &place));
                return Vec::new();
            }
        };
        let mut variables = Vec::new();
        for line in dotenvy::from_read_iter(text.as_bytes()) {
            match line {
                Ok(variable) => variables.push(variable),
                Err(error) => {
                    problems.push(bad_line(&error, &text, &place));
                    break;
                }
            }
        }
        variables
    }

    fn read_files(
        &self,
        environment: &str,
        around: &Environment,
        problems: &mut Vec<Problem>,
    ) -> Vec<Result<Map<String, Value>, config::ConfigError>> {
        let dir = self.folder();
        if self.dir.is_some() && !dir.is_dir() {
            let place = dir.display().to_string();
            problems.push(unreadable("there is no such folder", "a folder", &place));
        }
        if !is_environment(environment) {
            let reason = format!("{environment:?} is not a name of an environment");
            let allowed = "letters, digits, _ and -";
            problems.push(unreadable(reason, allowed, ENVIRONMENT));
            return Vec::new();
        }
        let own = dir.join(format!("{environment}.toml"));
        if around.named.is_some() && dir.is_dir() && !own.is_file() {
            let reason = format!("there is no file for the environment {environment:?}");
            let place = own.display().to_string();
            problems.push(unreadable(
                reason,
                "the name of a file in that folder",
                &place,
            ));
        }
        let files = [
            (dir.join("default.toml"), LayerRank::DefaultFile),
            (own, LayerRank::EnvironmentFile),
        ];
        let files = files
            .into_iter()
            .filter(|(path, _)| self.has_folder() && path.is_file())
            .map(|(path, rank)| File::new(&path.to_string_lossy(), LinedToml(rank)).collect());
        let texts = self.texts.iter();
        let texts = texts.map(|text| File::from_str(text, LinedToml(LayerRank::Text)).collect());
        files.chain(texts).collect()
    }
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
    /// Returns the files that exist.
    pub fn found(&self) -> impl Iterator<Item = &Path> {
        let files = self.files.iter().map(PathBuf::as_path);
        files.filter(|path| path.is_file())
    }
}

/// Variables that a loader reads outside of the directory.
struct Environment {
    dotenv: Vec<(String, String)>,
    variables: Vec<(String, String)>,
    /// The environment, if it was named.
    named: Option<String>,
}

/// Returns true if the name is a valid file name within the directory.
fn is_environment(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    !name.is_empty() && name.chars().all(plain)
}

/// Returns true if every index in a key is small: an array gets the length of its index.
fn has_sane_indices(key: &str) -> bool {
    let indices = key.split('[').skip(1).map(|rest| rest.split(']').next());
    let sane = |index: &str| index.len() <= 3 && index.parse::<u16>().is_ok();
    indices.into_iter().all(|index| index.is_some_and(sane))
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
fn standard(
    variables: &[(String, String)],
    place: impl Fn(&str) -> String,
) -> Vec<Result<Map<String, Value>, config::ConfigError>> {
    let all = otel::standard(variables).into_iter();
    all.map(|(name, key, text)| {
        let origin = ValueOrigin::new(LayerRank::Standard, place(&name));
        let key = format!("otel.{key}");
        SingleValue { key, text, origin }.collect()
    })
    .collect()
}

/// Converts variables to layers of one key each, sorted by name. So the result does not depend on
/// the order of the environment.
fn variables_of(
    variables: Vec<(String, String)>,
    origin: impl Fn(&str) -> ValueOrigin,
) -> Vec<Result<Map<String, Value>, config::ConfigError>> {
    let sorted: BTreeMap<String, String> = variables.into_iter().collect();
    let ours = sorted
        .into_iter()
        .filter(|(name, _)| name.starts_with(PREFIX));
    ours.map(|(name, text)| {
        let one = Map::from_iter([(name.clone(), text.clone())]);
        let reader = EnvironmentSource::with_prefix("BREAKERBOX")
            .separator("__")
            .ignore_empty(true);
        let key = reader.source(Some(one)).collect()?.into_keys().next();
        let origin = origin(&name);
        key.map_or_else(
            || Ok(Map::new()),
            |key| SingleValue { key, text, origin }.collect(),
        )
    })
    .collect()
}

fn merge(
    layers: Vec<Result<Map<String, Value>, config::ConfigError>>,
    problems: &mut Vec<Problem>,
) -> Value {
    let mut builder = Config::builder();
    for layer in layers {
        match layer {
            Ok(values) => builder = builder.add_source(CollectedValues(values)),
            Err(config::ConfigError::FileParse { uri, cause }) => {
                let place = uri.unwrap_or_else(|| "the given text".to_owned());
                problems.push(unreadable(cause, "TOML", &place));
            }
            Err(other) => problems.push(unreadable(other, "a readable layer", "configuration")),
        }
    }
    match builder.build() {
        Ok(config) => config.cache,
        Err(error) => {
            problems.push(unreadable(
                error,
                "layers that fit together",
                "configuration",
            ));
            Value::new(None, Map::<String, Value>::new())
        }
    }
}

/// Describes an invalid line of `.env`. The line is not shown: it may contain a secret.
fn bad_line(error: &dotenvy::Error, text: &str, file: &str) -> Problem {
    let allowed = "lines such as NAME=value";
    let dotenvy::Error::LineParse(line, column) = error else {
        return unreadable(error, allowed, file);
    };
    let reason = format!("a line cannot be read at column {column}");
    // A value may continue over several lines; its first line is reported.
    let begin = line.lines().next().unwrap_or_default();
    match text.lines().position(|line| line == begin) {
        Some(before) => unreadable(reason, allowed, &format!("{file}:{}", before + 1)),
        None => unreadable(reason, allowed, file),
    }
}

fn unreadable(reason: impl ToString, allowed: &str, origin: &str) -> Problem {
    Problem {
        key: String::new(),
        given: None,
        reason: Some(reason.to_string()),
        allowed: allowed.to_owned(),
        origin: origin.to_owned(),
    }
}
