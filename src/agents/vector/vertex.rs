//! Vertex AI: embeddings by `:predict` or `:embedContent`, and the index of Vector Search.
//!
//! Models and indexes have locations of their own: new models are served globally, an index has a
//! region.

mod embedding;
mod index;

use serde::de::DeserializeOwned;

use super::provider::is_about_length;
use crate::CallContext;
use crate::agents::google::GoogleError;
use crate::agents::{ServiceError, ServicePort, ServiceRequest, Tokens};

pub use embedding::VertexEmbedding;
pub use index::VertexIndex;

/// The location that is no region: its host has no prefix.
pub(super) const GLOBAL: &str = "global";
/// Prefix of the models that only `:embedContent` serves.
const CONTENT_ONLY: &str = "gemini-embedding-2";

/// Returns the host of a location: a region, a multi-region, or `global`.
pub(super) fn host(location: &str) -> String {
    match location {
        GLOBAL => "https://aiplatform.googleapis.com".to_owned(),
        "eu" | "us" => format!("https://aiplatform.{location}.rep.googleapis.com"),
        region => format!("https://{region}-aiplatform.googleapis.com"),
    }
}

/// Returns true if only `:embedContent` serves this model.
pub(super) fn is_content_only(model: &str) -> bool {
    model.starts_with(CONTENT_ONLY)
}

/// Sends a request with a token; if that is rejected, once more with a new one.
async fn ask<T: DeserializeOwned>(
    tokens: &Tokens,
    asked: ServiceRequest,
    (port, call): (&ServicePort, &CallContext),
) -> Result<T, ServiceError> {
    let asked = match tokens.quota_project() {
        Some(project) => asked.try_header("x-goog-user-project", &project)?,
        None => asked,
    };
    let mut token = tokens.current().await?;
    let mut answer = port.send(asked.clone().bearer(&token)?, call).await?;
    if answer.status == 401 {
        token = tokens.refresh(&token).await?;
        answer = port.send(asked.bearer(&token)?, call).await?;
    }
    if answer.status == 200 {
        return answer.json();
    }
    let mut error = ServiceError::from(GoogleError::from(&answer));
    if is_about_length(&answer) {
        error = ServiceError::misconfigured(error.to_string());
    }
    Err(error.without(&token))
}
