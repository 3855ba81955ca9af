//! Credentials for Google's services: where they are looked for, and the source that they make.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::file::{self, CredentialFile};
use super::sources::TokenEndpoint;
use super::{Token, TokenSource};
use crate::agents::ServiceError;

/// Host of the metadata server, unless `GCE_METADATA_HOST` names another.
const METADATA_HOST: &str = "metadata.google.internal";
/// Its path of the tokens of the machine's identity.
const METADATA_PATH: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// Variables that only Google's own platforms set, where the metadata server serves.
const PLATFORMS: [&str; 3] = ["K_SERVICE", "CLOUD_RUN_JOB", "GAE_SERVICE"];
/// Names the maker of a machine.
const MACHINE: &str = "/sys/class/dmi/id/product_name";

/// Credentials for a service.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// None were given.
    #[default]
    Missing,
    /// A file with credentials: the key of a service account, the login of a user
    /// (`application_default_credentials.json`), a federated identity, or an impersonation.
    KeyFile(PathBuf),
    /// URL of a token endpoint, which gives tokens for the identity of this machine.
    Endpoint(String),
    /// A token source of the program itself.
    Source(Arc<dyn TokenSource>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Missing => "Missing",
            Self::KeyFile(_) => "KeyFile",
            Self::Endpoint(_) => "Endpoint",
            Self::Source(_) => "Source",
        })
    }
}

impl Credentials {
    /// Returns the metadata server of a machine in Google Cloud.
    #[must_use]
    pub fn metadata_server() -> Self {
        Self::metadata_at(METADATA_HOST)
    }

    fn metadata_at(host: &str) -> Self {
        Self::Endpoint(format!("http://{host}{METADATA_PATH}"))
    }

    /// Looks for credentials where Google's own tools do: the variable
    /// `GOOGLE_APPLICATION_CREDENTIALS`, the file that `gcloud auth application-default login`
    /// writes, and the metadata server, if this machine is Google's.
    #[must_use]
    pub fn application_default() -> Self {
        let found = Self::from_variables(&|name: &str| std::env::var(name).ok());
        let machine = std::fs::read_to_string(MACHINE).unwrap_or_default();
        match found {
            Self::Missing if machine.trim().starts_with("Google") => Self::metadata_server(),
            found => found,
        }
    }

    /// Looks for credentials by variables alone: those of a file, of the folders in which it may
    /// stand, and of Google's platforms.
    pub(in crate::agents) fn from_variables(read: &impl Fn(&str) -> Option<String>) -> Self {
        let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
        if let Some(path) = read("GOOGLE_APPLICATION_CREDENTIALS") {
            return Self::KeyFile(path.into());
        }
        let folder = read("CLOUDSDK_CONFIG").map(PathBuf::from);
        let folder = folder
            .or_else(|| read("APPDATA").map(|base| Path::new(&base).join("gcloud")))
            .or_else(|| read("HOME").map(|base| Path::new(&base).join(".config/gcloud")));
        let file = folder.map(|folder| folder.join("application_default_credentials.json"));
        if let Some(file) = file.filter(|file| file.is_file()) {
            return Self::KeyFile(file);
        }
        if let Some(host) = read("GCE_METADATA_HOST") {
            return Self::metadata_at(host.trim());
        }
        if PLATFORMS.iter().any(|name| read(name).is_some()) {
            return Self::metadata_server();
        }
        Self::Missing
    }

    /// Returns the reason why these credentials cannot be used, if one is known before any request.
    pub(in crate::agents) fn problem(&self) -> Option<String> {
        match self {
            Self::Missing => Some("credentials missing".to_owned()),
            Self::KeyFile(path) => {
                file::problem(path).map(|problem| format!("credentials: {problem}"))
            }
            Self::Endpoint(_) | Self::Source(_) => None,
        }
    }

    pub(in crate::agents) fn source(&self) -> Result<Arc<dyn TokenSource>, ServiceError> {
        Ok(match self {
            Self::Missing => Arc::new(NoCredentials),
            Self::KeyFile(path) => Arc::new(CredentialFile::new(path)?),
            Self::Endpoint(url) => Arc::new(TokenEndpoint::new(url)?),
            Self::Source(source) => Arc::clone(source),
        })
    }
}

/// Token source without credentials: every fetch fails.
struct NoCredentials;

impl TokenSource for NoCredentials {
    fn fetch(&self) -> BoxFuture<'_, Result<Token, ServiceError>> {
        let error = ServiceError::misconfigured("no credentials were given");
        Box::pin(std::future::ready(Err(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_credentials_are_looked_for_where_googles_tools_do() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap().to_owned();
        let find = |given: &[(&str, &str)]| {
            let read = |name: &str| {
                let mut all = given.iter();
                let found = all.find(|(known, _)| *known == name)?;
                Some(found.1.to_owned())
            };
            Credentials::from_variables(&read)
        };
        assert!(matches!(find(&[("HOME", &home)]), Credentials::Missing));
        let url = |found: Credentials| match found {
            Credentials::Endpoint(url) => url,
            other => format!("{other:?}"),
        };
        let run = url(find(&[("HOME", &home), ("K_SERVICE", "agents")]));
        assert_eq!(
            run,
            format!("http://metadata.google.internal{METADATA_PATH}")
        );
        let other = url(find(&[("GCE_METADATA_HOST", "127.0.0.1:8080")]));
        assert_eq!(other, format!("http://127.0.0.1:8080{METADATA_PATH}"));
        let gcloud = folder.path().join(".config/gcloud");
        std::fs::create_dir_all(&gcloud).unwrap();
        let file = gcloud.join("application_default_credentials.json");
        std::fs::write(&file, "{}").unwrap();
        let found = find(&[("HOME", &home), ("K_SERVICE", "agents")]);
        assert!(matches!(&found, Credentials::KeyFile(path) if *path == file));
        assert!(found.problem().unwrap().contains("it lacks type"));
        let named = find(&[
            ("HOME", &home),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/k.json"),
        ]);
        assert!(matches!(named, Credentials::KeyFile(path) if path == Path::new("/k.json")));
    }
}
