//! An index of Vertex AI Vector Search behind a public endpoint.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ask, host};
use crate::CallContext;
use crate::agents::vector::Neighbor;
use crate::agents::vector::filter::{FieldCondition, FieldTest, VectorFilter};
use crate::agents::vector::provider::{ServiceFuture, VectorPoint, VectorQuery, VectorStore};
use crate::agents::vector::store_names::StoreNames;
use crate::agents::{ServiceError, ServicePort, ServiceRequest, Tokens};

/// Maximum number of data points in one write.
const MAX_POINTS: usize = 1_000;

/// An index of Vertex AI Vector Search that is deployed to a public endpoint.
#[derive(Debug)]
pub struct VertexIndex {
    names: StoreNames,
    find_url: String,
    deployed_index: String,
    /// The index's own URL; without it, the index cannot be written.
    write_url: Option<String>,
    tokens: Arc<Tokens>,
}

impl VertexIndex {
    /// Creates a store for an index that is deployed to an endpoint in a region. `domain`: the
    /// endpoint's public domain, which serves the searches; the region's host does not.
    #[must_use]
    pub fn new(
        project: &str,
        location: &str,
        [endpoint, domain, deployed_index]: [&str; 3],
        tokens: Arc<Tokens>,
    ) -> Self {
        let base = format!("https://{domain}");
        Self::at(&base, project, location, [endpoint, deployed_index], tokens)
    }

    pub(in crate::agents::vector) fn at(
        base: &str,
        project: &str,
        location: &str,
        [endpoint, deployed_index]: [&str; 2],
        tokens: Arc<Tokens>,
    ) -> Self {
        Self {
            names: StoreNames::default(),
            find_url: format!(
                "{base}/v1/projects/{project}/locations/{location}/indexEndpoints/{endpoint}:findNeighbors"
            ),
            deployed_index: deployed_index.to_owned(),
            write_url: None,
            tokens,
        }
    }

    /// Sets the index's own id, so that it can be written. Its update method must be streaming.
    #[must_use]
    pub fn writable(self, project: &str, location: &str, index: &str) -> Self {
        self.writable_at(&host(location), project, location, index)
    }

    pub(in crate::agents::vector) fn writable_at(
        mut self,
        base: &str,
        project: &str,
        location: &str,
        index: &str,
    ) -> Self {
        let url = format!("{base}/v1/projects/{project}/locations/{location}/indexes/{index}");
        self.write_url = Some(url);
        self
    }

    /// Sets the names of the dependencies for searches and for writes; `vector_find` and
    /// `vector_write` by default.
    #[must_use]
    pub fn named(mut self, find: impl Into<String>, write: impl Into<String>) -> Self {
        self.names = StoreNames::new(find.into(), write.into());
        self
    }

    async fn write(
        &self,
        verb: &str,
        body: Value,
        way: (&ServicePort, &CallContext),
    ) -> Result<(), ServiceError> {
        let Some(url) = &self.write_url else {
            let text = "the id of the index is missing (VECTOR_SEARCH_INDEX_ID)";
            return Err(ServiceError::misconfigured(text));
        };
        let asked = ServiceRequest::post_json(format!("{url}:{verb}"), &body);
        let _: Value = ask(&self.tokens, asked, way).await?;
        Ok(())
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

/// Returns a value as a token of a restriction, which is text.
fn restriction_token(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the only number of a list; `None` if there is no number in it.
fn only_number(values: &[Value]) -> Result<Option<f64>, ServiceError> {
    match values {
        [Value::Number(number)] => Ok(number.as_f64()),
        values if values.iter().any(Value::is_number) => {
            let text = "this store compares a field with one number only";
            Err(ServiceError::rejected(text))
        }
        _ => Ok(None),
    }
}

/// Writes a filter as restrictions: tokens for texts, comparisons for numbers.
fn restrictions(filter: &VectorFilter) -> Result<(Vec<Value>, Vec<Value>), ServiceError> {
    let (mut tokens, mut numbers) = (Vec::new(), Vec::new());
    for FieldCondition { field, test } in filter.conditions() {
        let mut compare = |op: &str, number: f64| {
            numbers.push(json!({ "namespace": field, "valueDouble": number, "op": op }));
        };
        let mut restrict = |list: &str, values: &[Value]| {
            let all: Vec<String> = values.iter().map(restriction_token).collect();
            tokens.push(json!({ "namespace": field, list: all }));
        };
        match test {
            FieldTest::OneOf(values) => match only_number(values)? {
                Some(number) => compare("EQUAL", number),
                None => restrict("allowList", values),
            },
            FieldTest::NoneOf(values) => match only_number(values)? {
                Some(number) => compare("NOT_EQUAL", number),
                None => restrict("denyList", values),
            },
            FieldTest::AtLeast(least) => compare("GREATER_EQUAL", *least),
            FieldTest::AtMost(most) => compare("LESS_EQUAL", *most),
        }
    }
    Ok((tokens, numbers))
}

/// Writes a point with its metadata as restrictions, so that filters can name its fields. Nested
/// values are left out.
fn datapoint(point: &VectorPoint) -> Value {
    let (mut tokens, mut numbers) = (Vec::new(), Vec::new());
    for (field, value) in &point.metadata {
        let allow = |list: Vec<String>| json!({ "namespace": field, "allowList": list });
        match value {
            Value::Number(number) => numbers.push(json!({
                "namespace": field, "valueDouble": number.as_f64().unwrap_or_default(),
            })),
            Value::String(_) | Value::Bool(_) => tokens.push(allow(vec![restriction_token(value)])),
            Value::Array(all) if all.iter().all(Value::is_string) => {
                tokens.push(allow(all.iter().map(restriction_token).collect()));
            }
            _ => {}
        }
    }
    json!({
        "datapointId": point.id, "featureVector": &*point.vector.values,
        "restricts": tokens, "numericRestricts": numbers,
    })
}

impl VectorStore for VertexIndex {
    fn name(&self) -> &str {
        self.names.find()
    }

    fn write_name(&self) -> Option<&str> {
        self.write_url.as_ref().map(|_| self.names.write())
    }

    fn keeps_content(&self) -> bool {
        false
    }

    fn max_points(&self) -> usize {
        MAX_POINTS
    }

    fn find<'a>(
        &'a self,
        query: &'a VectorQuery,
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, Vec<Neighbor>> {
        Box::pin(async move {
            let mut point = json!({ "datapointId": "query", "featureVector": query.values()? });
            if !query.filter.is_empty() {
                let (tokens, numbers) = restrictions(&query.filter)?;
                point["restricts"] = Value::from(tokens);
                point["numericRestricts"] = Value::from(numbers);
            }
            let body = json!({
                "deployedIndexId": self.deployed_index,
                "queries": [{ "datapoint": point, "neighborCount": query.count }],
                "returnFullDatapoint": false,
            });
            let asked = ServiceRequest::post_json(self.find_url.clone(), &body);
            let found: NeighborsResponse = ask(&self.tokens, asked, (port, call)).await?;
            let near = found
                .nearest_neighbors
                .into_iter()
                .flat_map(|one| one.neighbors);
            let near = near.map(|near| Neighbor::new(near.datapoint.datapoint_id, near.distance));
            Ok(near.collect())
        })
    }

    fn upsert<'a>(
        &'a self,
        points: &'a [VectorPoint],
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        let points: Vec<Value> = points.iter().map(datapoint).collect();
        let body = json!({ "datapoints": points });
        Box::pin(async move { self.write("upsertDatapoints", body, (port, call)).await })
    }

    fn remove<'a>(
        &'a self,
        ids: &'a [String],
        port: &'a ServicePort,
        call: &'a CallContext,
    ) -> ServiceFuture<'a, ()> {
        let body = json!({ "datapointIds": ids });
        Box::pin(async move { self.write("removeDatapoints", body, (port, call)).await })
    }

    fn tokens(&self) -> Option<Arc<Tokens>> {
        Some(Arc::clone(&self.tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;
    use crate::agents::token::Credentials;

    #[test]
    fn agents_an_index_is_read_at_its_domain_and_written_in_its_region() {
        let source = Credentials::Missing.source().unwrap();
        let tokens = Arc::new(Tokens::new(source, Clock::tokio()));
        let ids = ["7", "1.europe-west1-2.vdb.vertexai.goog", "d"];
        let index = VertexIndex::new("p", "europe-west1", ids, tokens);
        assert_eq!(
            index.find_url,
            "https://1.europe-west1-2.vdb.vertexai.goog/v1/projects/p/locations/europe-west1\
             /indexEndpoints/7:findNeighbors"
        );
        assert_eq!(index.write_name(), None);
        let index = index.writable("p", "europe-west1", "9");
        assert_eq!(
            index.write_url.as_deref(),
            Some(
                "https://europe-west1-aiplatform.googleapis.com/v1/projects/p/locations/europe-west1\
                 /indexes/9"
            )
        );
    }

    #[test]
    fn agents_a_field_is_compared_with_one_number_only() {
        let all = VectorFilter::default;
        let (tokens, numbers) = restrictions(&all().is("year", 2026)).unwrap();
        assert_eq!((tokens.len(), numbers.len()), (0, 1));
        assert!(restrictions(&all().one_of("year", [2025, 2026])).is_err());
        let (tokens, numbers) = restrictions(&all().one_of("kind", ["a", "b"])).unwrap();
        assert_eq!((tokens.len(), numbers.len()), (1, 0));
    }
}
