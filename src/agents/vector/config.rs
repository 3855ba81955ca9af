//! Configuration of vector search, and the check for missing settings.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::agents::{ServiceAccount, ServiceError, TokenEndpoint, TokenSource};
use crate::config::credentials;

/// Configuration of vector search: the service, its credentials, and the fallbacks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VectorConfig {
    /// The project, `GOOGLE_CLOUD_PROJECT`.
    pub project: Option<String>,
    /// The region, `GOOGLE_CLOUD_LOCATION`; `us-central1` by default.
    pub location: String,
    /// The index endpoint's id, `VECTOR_SEARCH_ENDPOINT_ID`.
    pub index_endpoint: Option<String>,
    /// The index endpoint's public domain, `VECTOR_SEARCH_ENDPOINT_DOMAIN`: it serves
    /// `:findNeighbors`, the region's host does not.
    pub endpoint_domain: Option<String>,
    /// The index deployed there, `DEPLOYED_INDEX_ID`.
    pub deployed_index: Option<String>,
    /// The credentials, `GOOGLE_APPLICATION_CREDENTIALS`.
    pub credentials: Credentials,
    /// The model of the embeddings; the index must have been made with it.
    pub model: String,
    /// Length of an embedding.
    pub dimensions: usize,
    /// Maximum number of texts in one request; `gemini-` models always take one.
    pub max_texts: usize,
    /// Maximum number of tokens in one request.
    pub max_tokens: u32,
    /// Base URL for embeddings and neighbours in place of Google's, such as that of a fake.
    pub base: Option<String>,
    /// True if local embeddings and the local index answer when the service does not. Otherwise
    /// the error reaches the caller.
    pub auto_fallback: bool,
    /// True if the local fallbacks always answer, and the service is never called.
    pub fallback_only: bool,
    /// Prefix of the dependencies' names: `vector` makes `vector_embed`, `vector_find` and
    /// `vector_token`.
    pub name: String,
}

/// Credentials for a service.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// None were given.
    #[default]
    Missing,
    /// The key file of a service account.
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

/// A required setting that is missing or unusable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// The environment variable of the setting.
    pub variable: &'static str,
    /// The setting and its problem.
    pub problem: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.problem, self.variable)
    }
}

impl Default for VectorConfig {
    fn default() -> Self {
        Self {
            project: None,
            location: "us-central1".to_owned(),
            index_endpoint: None,
            endpoint_domain: None,
            deployed_index: None,
            credentials: Credentials::Missing,
            model: "text-embedding-004".to_owned(),
            dimensions: 768,
            max_texts: 250,
            max_tokens: 20_000,
            base: None,
            auto_fallback: true,
            fallback_only: false,
            name: "vector".to_owned(),
        }
    }
}

impl VectorConfig {
    /// Reads the configuration from environment variables by `read`; empty ones count as unset.
    pub fn from_variables(read: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name: &str| read(name).filter(|value| !value.trim().is_empty());
        let file = read("GOOGLE_APPLICATION_CREDENTIALS");
        let usual = Self::default();
        Self {
            project: read("GOOGLE_CLOUD_PROJECT"),
            location: read("GOOGLE_CLOUD_LOCATION").unwrap_or(usual.location),
            index_endpoint: read("VECTOR_SEARCH_ENDPOINT_ID"),
            endpoint_domain: read("VECTOR_SEARCH_ENDPOINT_DOMAIN"),
            deployed_index: read("DEPLOYED_INDEX_ID"),
            credentials: file.map_or(Credentials::Missing, |path| {
                Credentials::KeyFile(path.into())
            }),
            ..Self::default()
        }
    }

    /// Returns all settings that are missing or unusable.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let mut all = Vec::new();
        let mut need = |given: bool, variable, what: &str| {
            if !given {
                let problem = format!("{what} missing");
                all.push(Missing { variable, problem });
            }
        };
        need(self.project.is_some(), "GOOGLE_CLOUD_PROJECT", "project id");
        let id = self.index_endpoint.is_some();
        need(id, "VECTOR_SEARCH_ENDPOINT_ID", "index endpoint id");
        let domain = self.endpoint_domain.is_some() || self.base.is_some();
        need(
            domain,
            "VECTOR_SEARCH_ENDPOINT_DOMAIN",
            "the index endpoint's domain",
        );
        let index = self.deployed_index.is_some();
        need(index, "DEPLOYED_INDEX_ID", "deployed index id");
        let credentials = match &self.credentials {
            Credentials::Missing => Some("credentials missing".to_owned()),
            Credentials::KeyFile(path) => credentials::check(path)
                .err()
                .map(|error| format!("credentials: {error}")),
            Credentials::Endpoint(_) | Credentials::Source(_) => None,
        };
        all.extend(credentials.map(|problem| Missing {
            variable: "GOOGLE_APPLICATION_CREDENTIALS",
            problem,
        }));
        all
    }

    pub(super) fn source(&self) -> Result<Arc<dyn TokenSource>, ServiceError> {
        Ok(match &self.credentials {
            Credentials::Missing => Arc::new(NoCredentials),
            Credentials::KeyFile(path) => Arc::new(ServiceAccount::new(path)?),
            Credentials::Endpoint(url) => Arc::new(TokenEndpoint::new(url)?),
            Credentials::Source(source) => Arc::clone(source),
        })
    }

    pub(super) fn embed_url(&self) -> String {
        let Self {
            location, model, ..
        } = self;
        let host = || format!("https://{location}-aiplatform.googleapis.com");
        let base = self.base.clone().unwrap_or_else(host);
        let project = self.project.as_deref().unwrap_or_default();
        format!(
            "{base}/v1/projects/{project}/locations/{location}/publishers/google/models/{model}:predict"
        )
    }

    pub(super) fn find_url(&self) -> String {
        let location = &self.location;
        let domain = self.endpoint_domain.as_deref().unwrap_or_default();
        let base = self
            .base
            .clone()
            .unwrap_or_else(|| format!("https://{domain}"));
        let project = self.project.as_deref().unwrap_or_default();
        let id = self.index_endpoint.as_deref().unwrap_or_default();
        format!(
            "{base}/v1/projects/{project}/locations/{location}/indexEndpoints/{id}:findNeighbors"
        )
    }
}

/// Token source without credentials: every fetch fails.
struct NoCredentials;

impl TokenSource for NoCredentials {
    fn fetch(
        &self,
    ) -> futures_util::future::BoxFuture<'_, Result<crate::agents::Token, ServiceError>> {
        let verdict = crate::Verdict::from(crate::policy::Class::Misconfigured);
        let error = ServiceError::new(verdict, "no credentials were given");
        Box::pin(std::future::ready(Err(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_googles_unless_another_base_is_given() {
        let mut config = VectorConfig::from_variables(|name| {
            Some(
                match name {
                    "GOOGLE_CLOUD_PROJECT" => "p",
                    "GOOGLE_CLOUD_LOCATION" => "europe-west1",
                    "VECTOR_SEARCH_ENDPOINT_ID" => "7",
                    "VECTOR_SEARCH_ENDPOINT_DOMAIN" => "1.europe-west1-2.vdb.vertexai.goog",
                    _ => " ",
                }
                .to_owned(),
            )
        });
        assert_eq!(
            config.embed_url(),
            "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1\
             /publishers/google/models/text-embedding-004:predict"
        );
        assert_eq!(
            config.find_url(),
            "https://1.europe-west1-2.vdb.vertexai.goog/v1/projects/p/locations/europe-west1\
             /indexEndpoints/7:findNeighbors"
        );
        let missing: Vec<&str> = config.missing().iter().map(|one| one.variable).collect();
        assert_eq!(
            missing,
            ["DEPLOYED_INDEX_ID", "GOOGLE_APPLICATION_CREDENTIALS"]
        );
        config.base = Some("http://127.0.0.1:1".to_owned());
        assert!(
            config
                .find_url()
                .starts_with("http://127.0.0.1:1/v1/projects/p/")
        );
    }
}
