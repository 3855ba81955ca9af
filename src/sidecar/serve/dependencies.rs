//! The dependencies that `serve` runs: their addresses, and parts of the configuration that it
//! cannot serve.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use breakerbox_actors::{did_you_mean, printable};
use breakerbox_policy::CountedNoun;

use crate::config::{
    AccessLogTarget, AuthChoice, CallerAuth, DependencyConfig, DependencyKind, KeySource, Settings,
};
use crate::recorder;
use crate::sidecar::admin::OrderFile;
use crate::sidecar::gateway::{check_address, check_key_file, check_tls};

use super::SidecarError;
use crate::sidecar::simulated::{SITES, Site};
use crate::sidecar::state_file;

/// Allowed files of `tls`.
const PEM: &str = "files in PEM format, the key that of the certificate";

/// Addresses that the configuration does not contain: those of the simulated dependencies.
#[derive(Default)]
pub(super) struct ServicePlan {
    sites: BTreeMap<String, (Site, String)>,
}

/// All parts of the configuration that cannot be served.
#[derive(Debug)]
pub(super) struct UnservableConfig(Vec<String>);

impl fmt::Display for UnservableConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = CountedNoun(self.0.len() as u64, "problem");
        write!(out, "{count} in the configuration")?;
        self.0.iter().try_for_each(|line| write!(out, "\n  {line}"))
    }
}

impl std::error::Error for UnservableConfig {}

impl UnservableConfig {
    /// Fails if there is any problem.
    pub(super) fn of(problems: Vec<String>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self(problems))
        }
    }
}

impl ServicePlan {
    /// Checks the whole configuration, then starts new simulated dependencies.
    pub(super) async fn make(&mut self, settings: &Settings) -> Result<(), SidecarError> {
        UnservableConfig::of(problems(settings))?;
        for (name, one) in &settings.dependencies {
            let simulated = one.kind == Some(DependencyKind::Simulated);
            if simulated && !self.sites.contains_key(name) {
                let mut known = SITES.iter();
                let key = known.find(|(known, _)| known == name);
                let key = key.map_or("results", |(_, key)| *key);
                let site = Site::start(name, key).await;
                let site = site.map_err(SidecarError::Simulated)?;
                let url = site.url();
                self.sites.insert(name.clone(), (site, url));
            }
        }
        Ok(())
    }

    /// Returns the dependencies with their addresses, by name.
    pub(super) fn wanted<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> Vec<(&'a str, &'a DependencyConfig, &'a str)> {
        let all = settings.dependencies.iter();
        all.filter_map(|(name, one)| {
            let url = match self.site_of(name, one) {
                Some(url) => url,
                // None of a process, a group and a pool has an address.
                None if one.mcp.is_some() || one.members.is_some() || one.pool.is_some() => {
                    one.url.as_deref().unwrap_or_default()
                }
                None => one.url.as_deref()?,
            };
            Some((name.as_str(), one, url))
        })
        .collect()
    }

    fn site_of(&self, name: &str, one: &DependencyConfig) -> Option<&str> {
        let simulated = one.kind == Some(DependencyKind::Simulated);
        let (_, url) = self.sites.get(name).filter(|_| simulated)?;
        Some(url)
    }

    /// Returns the listening addresses of the simulated dependencies, by name.
    pub(super) fn simulated(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let sites = self.sites.iter();
        sites.map(|(name, (site, _))| (name.as_str(), site.address))
    }

    /// Stops simulated dependencies that are not configured any more, after the drain time that they
    /// had in the `old` configuration.
    pub(super) fn forget_others(&mut self, old: &Settings, settings: &Settings) {
        let simulated = |name: &String| {
            let one = settings.dependencies.get(name);
            one.is_some_and(|one| one.kind == Some(DependencyKind::Simulated))
        };
        let sites = std::mem::take(&mut self.sites).into_iter();
        let (kept, left): (BTreeMap<_, _>, BTreeMap<_, _>) =
            sites.partition(|(name, _)| simulated(name));
        self.sites = kept;
        for (name, site) in left {
            let drain = old.dependencies.get(&name);
            let drain = drain.map_or(Duration::ZERO, |one| one.settings.workers.drain);
            // Requests in flight still need it.
            tokio::spawn(async move {
                tokio::time::sleep(drain).await;
                drop(site);
            });
        }
    }
}

/// Returns the problems of dependencies that cannot be served.
pub(super) fn problems(settings: &Settings) -> Vec<String> {
    let own = settings.gateway.tls.as_ref();
    let own = own.and_then(|tls| check_tls(tls).err());
    let own = own.map(|problem| format!("gateway.{problem}, allowed: {PEM}"));
    let all = settings.dependencies.iter();
    let all = all.filter_map(|(name, one)| {
        if one.kind.is_none() {
            return Some(format!(
                "dependencies.{name}.kind: it is missing{}; only a program with its own code may leave \
                 it out, allowed: \"http\", \"mcp_stdio\", \"mcp_http\", \"mcp_group\", \"model\", \"pool\" or \"simulated\"{}",
                near_name(settings, name),
                place_of(settings, &format!("dependencies.{name}.")),
            ));
        }
        let url = one.url.as_deref().filter(|_| one.mcp.is_none())?;
        let problem = check_address(url, one).err()?;
        // EDGE-6: a half-renewed pair of files is no fault of the address.
        if problem.starts_with("tls.") {
            return Some(format!("dependencies.{name}.{problem}, allowed: {PEM}"));
        }
        let allowed = "an address such as \"http://127.0.0.1:9001\"";
        Some(format!("dependencies.{name}.url: {problem}, allowed: {allowed}"))
    });
    own.into_iter().chain(all).collect()
}

/// Returns the advice about a name that is nearly one of a dependency with a kind.
fn near_name(settings: &Settings, name: &str) -> String {
    let all = settings.dependencies.iter();
    let known = all.filter(|(_, one)| one.kind.is_some());
    did_you_mean(name, known.map(|(other, _)| other.as_str()))
}

/// Returns the place of the first value that was given below a section, in brackets.
fn place_of(settings: &Settings, begin: &str) -> String {
    let mut given = settings.effective().iter();
    let given = given.find(|one| !one.is_default && one.key.starts_with(begin));
    given.map_or(String::new(), |one| {
        format!(" ({})", printable(&one.origin))
    })
}

/// Returns the problem of a configuration without a dependency.
pub(super) fn none_to_protect(settings: &Settings) -> Option<String> {
    if !settings.dependencies.is_empty() || settings.reload.allow_empty {
        return None;
    }
    // EDGE-7: a sidecar that protects nothing is a mistake in a path or in a name.
    let files = settings
        .files()
        .iter()
        .map(|file| file.display().to_string());
    let files: Vec<String> = files.collect();
    let read = match files.is_empty() {
        true => "no file was read".to_owned(),
        false => format!("read {}", printable(&files.join(", "))),
    };
    Some(format!(
        "dependencies: there is none to protect ({read}), allowed: a section [dependencies.NAME], see \
         breakerbox init, or reload.allow_empty = true to start without any"
    ))
}

/// Returns the problems of files that are written from the start on.
pub(super) fn file_problems(settings: &Settings) -> Vec<String> {
    let trace = settings.recorder.path.as_deref().and_then(|path| {
        let allowed = "the path of a new file, or of a trace that a recorder has written";
        let error = recorder::check(path).err()?;
        Some(file_problem(settings, "recorder.path", &error, allowed))
    });
    let access = settings.gateway.access_log.as_ref().and_then(|log| {
        let allowed = "\"off\", \"stdout\", or the path of a file that can be written";
        let error = log.check().err()?;
        Some(file_problem(
            settings,
            "gateway.access_log",
            &error,
            allowed,
        ))
    });
    let state = settings.admin.state.as_ref();
    let state = state.and_then(|path| OrderFile::check(path).err());
    let state =
        state.map(|error| file_problem(settings, "admin.state", &error, state_file::ALLOWED));
    let files = trace.into_iter().chain(access).chain(state);
    let files = files.chain(one_file_twice(settings));
    files.chain(key_file_problems(settings)).collect()
}

/// Returns the problem of two keys that name one file: each would overwrite what the other has written.
fn one_file_twice(settings: &Settings) -> Option<String> {
    let access = settings.gateway.access_log.as_ref();
    let access = access.and_then(|log| match log {
        AccessLogTarget::File(path) => Some(path),
        AccessLogTarget::Stdout => None,
    });
    let named = [
        ("admin.state", settings.admin.state.as_ref()),
        ("gateway.access_log", access),
        ("recorder.path", settings.recorder.path.as_ref()),
    ];
    let place = |path: &PathBuf| -> PathBuf {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        folder.join(path.file_name().unwrap_or_default())
    };
    let named = named.into_iter();
    let named: Vec<_> = named
        .filter_map(|(key, path)| Some((key, place(path?))))
        .collect();
    let mut pairs = named.iter().enumerate();
    pairs.find_map(|(index, (key, path))| {
        let (other, _) = named[..index].iter().find(|(_, other)| other == path)?;
        let reason = format!("{other} names the same file");
        Some(file_problem(settings, key, &reason, "a file of its own"))
    })
}

/// Returns the problems of files with the keys of issuers: with a wrong one, no caller gets in.
pub(super) fn key_file_problems(settings: &Settings) -> Vec<String> {
    let own = |auth: &CallerAuth| match auth.jwt.as_ref().map(|jwt| &jwt.keys) {
        Some(KeySource::File(path)) => check_key_file(path).err(),
        _ => None,
    };
    let of_gateway = settings.gateway.auth.as_ref().and_then(own);
    let of_gateway = of_gateway.map(|error| ("gateway".to_owned(), error));
    let all = settings.dependencies.iter();
    let of_dependencies = all.filter_map(|(name, one)| match &one.auth {
        AuthChoice::Own(auth) => Some((format!("dependencies.{name}"), own(auth)?)),
        _ => None,
    });
    let found = of_gateway.into_iter().chain(of_dependencies);
    // MCP-6: told at the start, and not by each caller's 503.
    let told = found.map(|(place, error)| {
        let key = format!("{place}.auth.jwt.jwks_file");
        let allowed = "a file with a set of keys (JWKS), which has a key for signatures";
        file_problem(settings, &key, &error, allowed)
    });
    told.collect()
}

/// Returns the text of a problem with the file that a key names.
pub(super) fn file_problem(
    settings: &Settings,
    key: &str,
    error: &dyn fmt::Display,
    allowed: &str,
) -> String {
    let mut given = settings.effective().iter();
    let given = given.find(|one| one.key == key);
    let (value, origin) = given.map_or(("", ""), |one| (&one.value, &one.origin));
    format!(
        "{key}: given {}, {error}, allowed: {allowed} ({})",
        printable(value),
        printable(origin),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_6_a_file_of_tls_that_cannot_be_used_is_named_and_not_the_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "half of a file").unwrap();
        let text = format!(
            "[dependencies.web]\nkind = \"http\"\nurl = \"https://a\"\ntls.ca = {path:?}\n"
        );
        let settings = Settings::loader().bare().toml(text).load().unwrap();
        let told = problems(&settings);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("dependencies.web.tls.ca "), "{told:?}");
        assert!(told[0].ends_with(PEM), "{told:?}");
    }
}
