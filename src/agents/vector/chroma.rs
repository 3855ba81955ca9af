//! Chroma over HTTP, its interface version 2: searches with filters, upserts and removals in one
//! collection.
//!
//! A write creates the collection if it is missing; a search never does: a misspelt name is a
//! set-up mistake, not an empty answer.

use std::sync::RwLock;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Neighbor;
use super::filter::{FieldCondition, FieldTest, VectorFilter};
use super::provider::{ServiceFuture, VectorPoint, VectorQuery, VectorStore, store_failure};
use super::store_names::StoreNames;
use crate::CallContext;
use crate::agents::{ServiceError, ServicePort, ServiceRequest, ServiceResponse, percent_encoded};
use crate::config::Secret;
use crate::lock::RwLockExt as _;

/// Tenant and database of a server without any.
const DEFAULTS: [&str; 2] = ["default_tenant", "default_database"];

/// A collection of Chroma.
#[derive(Debug)]
pub struct ChromaStore {
    names: StoreNames,
    base: String,
    tenant: String,
    database: String,
    collection: String,
    key: Option<Secret>,
    /// The collection as the server knows it, once it was asked.
    known: RwLock<Option<KnownCollection>>,
}

/// Id of a collection, and the measure of its distances.
#[derive(Debug, Clone)]
struct KnownCollection {
    id: String,
    measure: DistanceMeasure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DistanceMeasure {
    /// One less the cosine, or less the dot product.
    OneLess,
    /// The square of the distance.
    Squared,
}

impl ChromaStore {
    /// Creates a store for a base URL such as `http://localhost:8000` and a collection.
    #[must_use]
    pub fn new(base: &str, collection: &str) -> Self {
        let [tenant, database] = DEFAULTS.map(str::to_owned);
        Self {
            names: StoreNames::default(),
            base: base.trim_end_matches('/').to_owned(),
            tenant,
            database,
            collection: collection.to_owned(),
            key: None,
            known: RwLock::default(),
        }
    }

    /// Sets tenant and database; `default_tenant` and `default_database` by default.
    #[must_use]
    pub fn within(mut self, tenant: impl Into<String>, database: impl Into<String>) -> Self {
        (self.tenant, self.database) = (tenant.into(), database.into());
        self
    }

    /// Sets the API key.
    #[must_use]
    pub fn key(mut self, key: Secret) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the names of the dependencies for searches and for writes; `vector_find` and
    /// `vector_write` by default.
    #[must_use]
    pub fn named(mut self, find: impl Into<String>, write: impl Into<String>) -> Self {
        self.names = StoreNames::new(find.into(), write.into());
        self
    }

    fn collections(&self) -> String {
        let (tenant, database) = (
            percent_encoded(&self.tenant),
            percent_encoded(&self.database),
        );
        let base = &self.base;
        format!("{base}/api/v2/tenants/{tenant}/databases/{database}/collections")
    }

    async fn send(
        &self,
        asked: ServiceRequest,
        (port, call): (&ServicePort, &CallContext),
    ) -> Result<ServiceResponse, ServiceError> {
        let asked = match &self.key {
            Some(key) => asked.secret_header("x-chroma-token", key.expose())?,
            None => asked,
        };
        port.send(asked, call).await
    }

    /// Returns the answer if it is a success, else its error.
    fn checked(&self, answer: ServiceResponse) -> Result<ServiceResponse, ServiceError> {
        if answer.is_success() {
            return Ok(answer);
        }
        Err(store_failure(&answer).without_key(self.key.as_ref()))
    }

    /// Returns the collection, asked for once. `create`: make it if it is missing.
    async fn known(
        &self,
        create: bool,
        way: (&ServicePort, &CallContext),
    ) -> Result<KnownCollection, ServiceError> {
        if let Some(known) = self.known.acquire_read().clone() {
            return Ok(known);
        }
        let all = self.collections();
        let asked = if create {
            let body = json!({
                "name": self.collection, "get_or_create": true,
                "configuration": { "hnsw": { "space": "cosine" } },
            });
            ServiceRequest::post_json(all, &body)
        } else {
            ServiceRequest::get(format!("{all}/{}", percent_encoded(&self.collection)))
        };
        let answer = self.checked(self.send(asked, way).await?)?;
        let CollectionResponse { id, configuration } = answer.json()?;
        let space = configuration
            .pointer("/hnsw/space")
            .or_else(|| configuration.pointer("/spann/space"));
        let measure = match space.and_then(Value::as_str) {
            Some("cosine" | "ip") => DistanceMeasure::OneLess,
            _ => DistanceMeasure::Squared,
        };
        let known = KnownCollection { id, measure };
        *self.known.acquire_write() = Some(known.clone());
        Ok(known)
    }

    async fn post(
        &self,
        id: &str,
        verb: &str,
        body: &Value,
        way: (&ServicePort, &CallContext),
    ) -> Result<ServiceResponse, ServiceError> {
        let url = format!("{}/{id}/{verb}", self.collections());
        self.send(ServiceRequest::post_json(url, body), way).await
    }

    /// Asks the collection. If it was made anew under its name, its id is looked up once more.
    async fn ask(
        &self,
        (verb, create): (&str, bool),
        body: &Value,
        way: (&ServicePort, &CallContext),
    ) -> Result<(ServiceResponse, DistanceMeasure), ServiceError> {
        let mut known = self.known(create, way).await?;
        let mut answer = self.post(&known.id, verb, body, way).await?;
        if answer.status == 404 {
            *self.known.acquire_write() = None;
            known = self.known(create, way).await?;
            answer = self.post(&known.id, verb, body, way).await?;
        }
        Ok((self.checked(answer)?, known.measure))
    }
}

#[derive(Deserialize)]
struct CollectionResponse {
    id: String,
    #[serde(default, rename = "configuration_json")]
    configuration: Value,
}

/// Values of the results of each query; those that are not known are null.
type ResultLists<T> = Option<Vec<Vec<Option<T>>>>;

/// A response to one query; each list holds one list for each query.
#[derive(Deserialize)]
struct QueryLists {
    ids: Vec<Vec<String>>,
    distances: ResultLists<f64>,
    documents: ResultLists<String>,
    metadatas: ResultLists<Map<String, Value>>,
}

impl QueryLists {
    fn neighbors(self, measure: DistanceMeasure) -> Vec<Neighbor> {
        fn first<T>(lists: Option<Vec<Vec<T>>>) -> impl Iterator<Item = T> {
            lists.into_iter().flatten().next().into_iter().flatten()
        }
        let mut distances = first(self.distances);
        let mut documents = first(self.documents);
        let mut metadatas = first(self.metadatas);
        let ids = self.ids.into_iter().next().unwrap_or_default();
        let found = ids.into_iter().map(|id| {
            let distance = distances.next().flatten().unwrap_or_default();
            // Of vectors with the norm one, each is the cosine.
            let score = match measure {
                DistanceMeasure::OneLess => 1.0 - distance,
                DistanceMeasure::Squared => 1.0 - distance / 2.0,
            };
            let mut neighbor = Neighbor::new(id, score);
            neighbor.content = documents.next().flatten();
            neighbor.metadata = metadatas.next().flatten().unwrap_or_default();
            neighbor
        });
        found.collect()
    }
}

/// Writes a filter as a condition of Chroma, which has no lists of one.
fn condition(filter: &VectorFilter) -> Value {
    let one = |FieldCondition { field, test }: &FieldCondition| {
        let test = match test {
            FieldTest::OneOf(values) => match &values[..] {
                [value] => json!({ "$eq": value }),
                values => json!({ "$in": values }),
            },
            FieldTest::NoneOf(values) => match &values[..] {
                [value] => json!({ "$ne": value }),
                values => json!({ "$nin": values }),
            },
            FieldTest::AtLeast(least) => json!({ "$gte": least }),
            FieldTest::AtMost(most) => json!({ "$lte": most }),
        };
        json!({ field.as_str(): test })
    };
    let mut all: Vec<Value> = filter.conditions().iter().map(one).collect();
    match all.len() {
        0 => Value::Null,
        1 => all.remove(0),
        _ => json!({ "$and": all }),
    }
}

/// Returns metadata as Chroma takes it: flat, and null in place of an empty object.
fn metadata(point: &VectorPoint) -> Result<Value, ServiceError> {
    let nested = |value: &Value| match value {
        Value::Object(_) => true,
        Value::Array(all) => all.iter().any(|one| one.is_object() || one.is_array()),
        _ => false,
    };
    if let Some((field, _)) = point.metadata.iter().find(|(_, value)| nested(value)) {
        let text = format!("the metadata field {field} is nested, allowed are values and lists");
        return Err(ServiceError::rejected(text));
    }
    if point.metadata.is_empty() {
        return Ok(Value::Null);
    }
    Ok(Value::Object(point.metadata.clone()))
}

impl VectorStore for ChromaStore {
    fn name(&self) -> &str {
        self.names.find()
    }

    fn write_name(&self) -> Option<&str> {
        Some(self.names.write())
    }

    fn find<'a>(
        &'a self,
        query: &'a VectorQuery,
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, Vec<Neighbor>> {
        Box::pin(async move {
            let body = json!({
                "query_embeddings": [query.values()?], "n_results": query.count,
                "where": condition(&query.filter),
                "include": ["documents", "metadatas", "distances"],
            });
            let (answer, measure) = self.ask(("query", false), &body, (port, call)).await?;
            Ok(answer.json::<QueryLists>()?.neighbors(measure))
        })
    }

    fn upsert<'a>(
        &'a self,
        points: &'a [VectorPoint],
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        Box::pin(async move {
            let metadatas: Result<Vec<Value>, ServiceError> = points.iter().map(metadata).collect();
            let vectors = points.iter().map(|point| &*point.vector.values);
            let body = json!({
                "ids": points.iter().map(|point| &point.id).collect::<Vec<_>>(),
                "embeddings": vectors.collect::<Vec<_>>(),
                "documents": points.iter().map(|point| &point.content).collect::<Vec<_>>(),
                "metadatas": metadatas?,
            });
            let sent = self.ask(("upsert", true), &body, (port, call)).await;
            sent.map(|_| ())
        })
    }

    fn remove<'a>(
        &'a self,
        ids: &'a [String],
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        Box::pin(async move {
            let body = json!({ "ids": ids });
            let sent = self.ask(("delete", false), &body, (port, call)).await;
            sent.map(|_| ())
        })
    }
}
