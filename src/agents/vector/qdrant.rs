//! Qdrant over HTTP: searches with filters, upserts and removals in one collection.
//!
//! Content and metadata of a point are its payload. The collection is not created here: its vectors
//! have settings that only an operator knows.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::Neighbor;
use super::filter::{FieldCondition, FieldTest, VectorFilter};
use super::provider::{ServiceFuture, VectorPoint, VectorQuery, VectorStore, store_failure};
use super::store_names::StoreNames;
use crate::CallContext;
use crate::agents::{ServiceError, ServicePort, ServiceRequest, ServiceResponse, percent_encoded};
use crate::config::Secret;

/// Payload field of the content, unless another one is set.
const CONTENT: &str = "content";
/// Payload field of an id that Qdrant cannot have.
const GIVEN_ID: &str = "_id";

/// A collection of Qdrant.
///
/// Ids that are neither numbers nor UUIDs are stored as UUIDs made of their SHA-256, with the
/// given id in the payload field `_id`.
#[derive(Debug)]
pub struct QdrantStore {
    names: StoreNames,
    url: String,
    content: String,
    key: Option<Secret>,
}

impl QdrantStore {
    /// Creates a store for a base URL such as `http://localhost:6333` and a collection.
    #[must_use]
    pub fn new(base: &str, collection: &str) -> Self {
        let (base, collection) = (base.trim_end_matches('/'), percent_encoded(collection));
        Self {
            names: StoreNames::default(),
            url: format!("{base}/collections/{collection}/points"),
            content: CONTENT.to_owned(),
            key: None,
        }
    }

    /// Sets the API key.
    #[must_use]
    pub fn key(self, key: Secret) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// Sets the payload field of the content, such as `page_content`; `content` by default.
    #[must_use]
    pub fn content_field(mut self, field: impl Into<String>) -> Self {
        self.content = field.into();
        self
    }

    /// Sets the names of the dependencies for searches and for writes; `vector_find` and
    /// `vector_write` by default.
    #[must_use]
    pub fn named(mut self, find: impl Into<String>, write: impl Into<String>) -> Self {
        self.names = StoreNames::new(find.into(), write.into());
        self
    }

    async fn send(
        &self,
        asked: ServiceRequest,
        (port, call): (&ServicePort, &CallContext),
    ) -> Result<ServiceResponse, ServiceError> {
        let asked = match &self.key {
            Some(key) => asked.secret_header("api-key", key.expose())?,
            None => asked,
        };
        let answer = port.send(asked, call).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        Err(store_failure(&answer).without_key(self.key.as_ref()))
    }

    fn neighbor(&self, mut found: ScoredPoint) -> Neighbor {
        let id = match found.id {
            Value::String(id) => id,
            number => number.to_string(),
        };
        let given = found.payload.remove(GIVEN_ID);
        let given = given.as_ref().and_then(Value::as_str).map(str::to_owned);
        let mut neighbor = Neighbor::new(given.unwrap_or(id), found.score);
        if let Some(Value::String(content)) = found.payload.remove(&self.content) {
            neighbor.content = Some(content);
        }
        neighbor.metadata = found.payload;
        neighbor
    }

    fn point(&self, point: &VectorPoint) -> Value {
        let mut payload = point.metadata.clone();
        if let Some(content) = &point.content {
            payload.insert(self.content.clone(), Value::from(content.as_str()));
        }
        let id = point_id(&point.id);
        if id.as_str().is_some_and(|id| id != point.id) {
            payload.insert(GIVEN_ID.to_owned(), Value::from(point.id.as_str()));
        }
        json!({ "id": id, "vector": &*point.vector.values, "payload": payload })
    }
}

/// Returns an id that Qdrant can have: the number or UUID that was given, else a UUID made of it.
fn point_id(given: &str) -> Value {
    if let Ok(number) = given.parse::<u64>()
        && number.to_string() == given
    {
        return Value::from(number);
    }
    let groups: Vec<&str> = given.split('-').collect();
    let lengths = [8, 4, 4, 4, 12];
    let is_uuid = groups.len() == lengths.len()
        && groups.iter().zip(lengths).all(|(group, length)| {
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            group.len() == length && group.bytes().all(hex)
        });
    if is_uuid {
        return Value::from(given);
    }
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(Sha256::digest(given.as_bytes())) {
        *byte = hashed;
    }
    // Version 8, of a vendor's own making, and the usual variant.
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let [a, b, c, d, e] = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    Value::from(format!("{a}-{b}-{c}-{d}-{e}"))
}

/// Writes a filter as Qdrant's conditions.
fn conditions(filter: &VectorFilter) -> Value {
    let (mut must, mut must_not) = (Vec::new(), Vec::new());
    for FieldCondition { field, test } in filter.conditions() {
        match test {
            FieldTest::OneOf(values) => must.push(matching(field, values)),
            FieldTest::NoneOf(values) => must_not.push(matching(field, values)),
            FieldTest::AtLeast(least) => {
                must.push(json!({ "key": field, "range": { "gte": least } }));
            }
            FieldTest::AtMost(most) => {
                must.push(json!({ "key": field, "range": { "lte": most } }));
            }
        }
    }
    json!({ "must": must, "must_not": must_not })
}

/// Writes that a field has one of these values. A match compares texts, integers and booleans; a
/// fraction is compared as a range.
fn matching(field: &str, values: &[Value]) -> Value {
    let one = |value: &Value| match value.as_f64().filter(|_| value.is_f64()) {
        Some(number) => json!({ "key": field, "range": { "gte": number, "lte": number } }),
        None => json!({ "key": field, "match": { "value": value } }),
    };
    match values {
        [value] => one(value),
        values => json!({ "should": values.iter().map(one).collect::<Vec<_>>() }),
    }
}

#[derive(Deserialize)]
struct QueryResponse {
    result: QueryResult,
}

#[derive(Deserialize)]
struct QueryResult {
    points: Vec<ScoredPoint>,
}

#[derive(Deserialize)]
struct ScoredPoint {
    id: Value,
    score: f64,
    #[serde(default)]
    payload: Map<String, Value>,
}

impl VectorStore for QdrantStore {
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
            let mut body = json!({
                "query": query.values()?, "limit": query.count, "with_payload": true,
            });
            if !query.filter.is_empty() {
                body["filter"] = conditions(&query.filter);
            }
            let asked = ServiceRequest::post_json(format!("{}/query", self.url), &body);
            let answer: QueryResponse = self.send(asked, (port, call)).await?.json()?;
            let points = answer.result.points.into_iter();
            Ok(points.map(|found| self.neighbor(found)).collect())
        })
    }

    fn upsert<'a>(
        &'a self,
        points: &'a [VectorPoint],
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        Box::pin(async move {
            let points: Vec<Value> = points.iter().map(|point| self.point(point)).collect();
            let url = format!("{}?wait=true", self.url);
            let asked = ServiceRequest::put_json(url, &json!({ "points": points }));
            self.send(asked, (port, call)).await.map(|_| ())
        })
    }

    fn remove<'a>(
        &'a self,
        ids: &'a [String],
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        Box::pin(async move {
            let ids: Vec<Value> = ids.iter().map(|id| point_id(id)).collect();
            let url = format!("{}/delete?wait=true", self.url);
            let asked = ServiceRequest::post_json(url, &json!({ "points": ids }));
            self.send(asked, (port, call)).await.map(|_| ())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_any_id_becomes_one_that_qdrant_can_have() {
        assert_eq!(point_id("17"), json!(17));
        let uuid = "5c56c793-69f3-4fbf-87e6-c4bf54c28c26";
        assert_eq!(point_id(uuid), json!(uuid));
        let made = point_id("notes/1.md");
        assert_eq!(made, point_id("notes/1.md"));
        assert_ne!(made, point_id("notes/2.md"));
        let made = made.as_str().unwrap();
        assert_eq!((made.len(), &made[14..15]), (36, "8"));
        assert_ne!(
            point_id("007"),
            json!(7),
            "it would come back as another id"
        );
    }
}
