//! Workers for the two operations of vector search: Vertex AI's `:predict` for embeddings, and
//! `:findNeighbors`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Embedding, Neighbor};
use crate::agents::google::GoogleError;
use crate::agents::http::{HttpConnections, ServiceRequest, malformed};
use crate::agents::token::Tokens;
use crate::agents::{InvalidInput, ServiceError};
use crate::config::Secret;
use crate::policy::Class;
use crate::{CallContext, Dependency, Verdict};

/// Texts of one embedding request, weighted by their tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Texts {
    pub(super) texts: Arc<[String]>,
    /// Task type, such as `RETRIEVAL_QUERY`.
    pub(super) task: &'static str,
    pub(super) tokens: NonZeroU32,
}

/// Query for the neighbours of a vector.
#[derive(Debug, Clone)]
pub(crate) struct NeighborQuery {
    /// The text of the vector, if known: the local index can search texts only.
    pub(super) text: Option<Arc<str>>,
    pub(super) vector: Embedding,
    pub(super) count: u32,
}

/// Context of an operation: URL, model, index, tokens and TLS.
#[derive(Debug, Clone)]
pub(super) struct ServiceContext {
    pub(super) url: String,
    pub(super) model: Arc<str>,
    pub(super) dimensions: usize,
    pub(super) deployed_index: String,
    pub(super) tokens: Arc<Tokens>,
    pub(super) tls: ClientConfig,
}

/// A worker for embeddings.
#[derive(Debug)]
pub(crate) struct EmbeddingWorker(VectorHttp);

/// A worker for neighbours.
#[derive(Debug)]
pub(crate) struct NeighborWorker(VectorHttp);

#[derive(Debug)]
struct VectorHttp {
    place: ServiceContext,
    http: HttpConnections,
}

impl VectorHttp {
    fn new(place: ServiceContext, connect: Option<Duration>) -> Self {
        let http = HttpConnections::new(place.tls.clone(), connect);
        Self { place, http }
    }

    /// Sends a request with a token; if that is rejected, once more with a new one.
    async fn ask<T: DeserializeOwned>(
        &self,
        body: &Value,
        call: Option<&CallContext>,
    ) -> Result<T, ServiceError> {
        let tokens = &self.place.tokens;
        let mut token = tokens.current().await?;
        let ask = async |token: &Secret| {
            let asked = ServiceRequest::post_json(self.place.url.clone(), body).bearer(token)?;
            self.http.send(asked, call).await
        };
        let mut answer = ask(&token).await?;
        if answer.status == 401 {
            let renewed = tokens.refresh(&token).await?;
            answer = ask(&renewed).await?;
            token = renewed;
        }
        if answer.status == 200 {
            answer.json()
        } else {
            let error = ServiceError::from(GoogleError::from(&answer));
            Err(error.without(&token))
        }
    }
}

#[derive(Deserialize)]
struct PredictionsResponse {
    predictions: Vec<EmbeddingPrediction>,
}

#[derive(Deserialize)]
struct EmbeddingPrediction {
    embeddings: EmbeddingValues,
}

#[derive(Deserialize)]
struct EmbeddingValues {
    values: Vec<f32>,
    #[serde(default)]
    statistics: Statistics,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Statistics {
    truncated: bool,
}

impl EmbeddingWorker {
    pub(super) fn new(place: ServiceContext, connect: Option<Duration>) -> Self {
        Self(VectorHttp::new(place, connect))
    }

    pub(super) async fn ask(
        &self,
        asked: &Texts,
        call: Option<&CallContext>,
    ) -> Result<Vec<Embedding>, ServiceError> {
        let place = &self.0.place;
        let instance = |text: &String| json!({ "content": text, "task_type": asked.task });
        let body = json!({
            "instances": asked.texts.iter().map(instance).collect::<Vec<_>>(),
            "parameters": { "autoTruncate": true, "outputDimensionality": place.dimensions },
        });
        let PredictionsResponse { predictions } = self.0.ask(&body, call).await?;
        let right = |one: &EmbeddingPrediction| one.embeddings.values.len() == place.dimensions;
        if predictions.len() != asked.texts.len() || !predictions.iter().all(right) {
            return Err(malformed(
                "the number or the length of its embeddings is not as requested",
            ));
        }
        let embedding = |one: EmbeddingPrediction| Embedding {
            values: Arc::from(one.embeddings.values),
            model: Arc::clone(&place.model),
            truncated: one.embeddings.statistics.truncated,
        };
        Ok(predictions.into_iter().map(embedding).collect())
    }
}

impl Dependency for EmbeddingWorker {
    type Request = Texts;
    type Response = Vec<Embedding>;
    type Error = ServiceError;

    async fn call(&self, texts: Texts, call: &CallContext) -> Result<Vec<Embedding>, ServiceError> {
        self.ask(&texts, Some(call)).await
    }

    fn classify(result: Result<&Vec<Embedding>, &ServiceError>) -> Verdict {
        verdict(result)
    }

    fn is_idempotent(_: &Texts) -> bool {
        true
    }

    fn weight(texts: &Texts) -> NonZeroU32 {
        texts.tokens
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NeighborsResponse {
    /// Omitted when empty, as in all of Google's responses.
    #[serde(default)]
    nearest_neighbors: Vec<NearestNeighbors>,
}

#[derive(Deserialize)]
struct NearestNeighbors {
    #[serde(default)]
    neighbors: Vec<FoundNeighbor>,
}

#[derive(Deserialize)]
struct FoundNeighbor {
    datapoint: DatapointId,
    #[serde(default)]
    distance: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DatapointId {
    datapoint_id: String,
}

impl NeighborWorker {
    pub(super) fn new(place: ServiceContext, connect: Option<Duration>) -> Self {
        Self(VectorHttp::new(place, connect))
    }

    pub(super) async fn ask(
        &self,
        wanted: &NeighborQuery,
        call: Option<&CallContext>,
    ) -> Result<Vec<Neighbor>, ServiceError> {
        let place = &self.0.place;
        place.check(&wanted.vector).map_err(|invalid| {
            ServiceError::new(Verdict::from(Class::Rejected), invalid.to_string())
        })?;
        let body = json!({
            "deployedIndexId": place.deployed_index,
            "queries": [{
                "datapoint": { "datapointId": "query", "featureVector": &*wanted.vector.values },
                "neighborCount": wanted.count,
            }],
            "returnFullDatapoint": false,
        });
        let NeighborsResponse { nearest_neighbors } = self.0.ask(&body, call).await?;
        let near = nearest_neighbors.into_iter().flat_map(|one| one.neighbors);
        Ok(near
            .map(|near| Neighbor::bare(near.datapoint.datapoint_id, near.distance))
            .collect())
    }
}

impl ServiceContext {
    /// Checks that this vector is comparable with those of the index.
    pub(super) fn check(&self, vector: &Embedding) -> Result<(), InvalidInput> {
        let Embedding { values, model, .. } = vector;
        if *model != self.model {
            let given = format!("one of {model}");
            return Err(InvalidInput::new(
                "the vector",
                given,
                format!("one of {}", self.model),
            ));
        }
        if values.len() != self.dimensions {
            let given = format!("{} numbers", values.len());
            return Err(InvalidInput::new(
                "the vector",
                given,
                self.dimensions.to_string(),
            ));
        }
        Ok(())
    }
}

impl Dependency for NeighborWorker {
    type Request = NeighborQuery;
    type Response = Vec<Neighbor>;
    type Error = ServiceError;

    async fn call(
        &self,
        wanted: NeighborQuery,
        call: &CallContext,
    ) -> Result<Vec<Neighbor>, ServiceError> {
        self.ask(&wanted, Some(call)).await
    }

    fn classify(result: Result<&Vec<Neighbor>, &ServiceError>) -> Verdict {
        verdict(result)
    }

    fn is_idempotent(_: &NeighborQuery) -> bool {
        true
    }
}

pub(super) fn verdict<T>(result: Result<T, &ServiceError>) -> Verdict {
    match result {
        Ok(_) => Verdict::from(Class::Success),
        Err(error) => error.verdict(),
    }
}
