//! Responses of the fakes of Google's services and of web searches, without a fault.

use axum::response::{IntoResponse as _, Json, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::fault::{google, reply};
use super::tokens::is_known;
use super::{DEPLOYED_INDEX, ENGINE, FakeRequest, FakeServer};
use crate::agents::vector::local_embedding;

const DIMENSIONS: usize = 768;
/// Norm of the shortened vectors of Gemini's models, which the client has to scale.
const NORM: f32 = 13.86;

/// Returns an embedding of another model than the local one: the values are reversed, so that
/// mixing up the models gives wrong results.
pub(super) fn embedding(text: &str) -> Vec<f32> {
    let mut values = local_embedding(text).values.to_vec();
    values.reverse();
    values
}

pub(super) fn nowhere() -> Response {
    google(
        404,
        "UNIMPLEMENTED",
        "Could not resolve the address to a method.",
    )
}

fn unauthenticated() -> Response {
    let message = "Request had invalid authentication credentials.";
    google(401, "UNAUTHENTICATED", message)
}

fn invalid(message: &str) -> Response {
    google(400, "INVALID_ARGUMENT", message)
}

/// Returns the embedding of a model of Vertex AI, of the length that was asked for.
fn vertex_embedding(model: &str, text: &str, length: &Value) -> Vec<f32> {
    let mut values = embedding(text);
    let length = length
        .as_u64()
        .and_then(|length| usize::try_from(length).ok());
    values.resize(length.unwrap_or(DIMENSIONS), 0.0);
    if model.starts_with("gemini-") {
        values.iter_mut().for_each(|value| *value *= NORM);
    }
    values
}

pub(super) fn embed(shared: &FakeServer, seen: &FakeRequest) -> Response {
    if !is_known(shared, seen) {
        return unauthenticated();
    }
    let method = seen
        .target
        .rsplit_once("/models/")
        .map(|(_, method)| method);
    let Some((model, verb)) = method.and_then(|method| method.split_once(':')) else {
        return nowhere();
    };
    let content_only = model.starts_with("gemini-embedding-2");
    match (verb, content_only) {
        ("predict", true) => {
            return google(400, "FAILED_PRECONDITION", "Precondition check failed.");
        }
        ("embedContent", false) => {
            return invalid("Publisher Model is not supported in the embedContent API.");
        }
        ("embedContent", true) => return embed_content(model, seen),
        _ => {}
    }
    let instances = seen.body["instances"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let most = if model.starts_with("gemini-") { 1 } else { 250 };
    if instances.is_empty() || instances.len() > most {
        return invalid("The number of instances is not allowed.");
    }
    let length = &seen.body["parameters"]["outputDimensionality"];
    let mut predictions = Vec::new();
    for instance in &instances {
        let Some(text) = instance["content"].as_str().filter(|text| !text.is_empty()) else {
            return invalid("The text content is empty.");
        };
        predictions.push(json!({ "embeddings": {
            "values": vertex_embedding(model, text, length),
            "statistics": { "token_count": text.split_whitespace().count(), "truncated": false },
        }}));
    }
    Json(json!({ "predictions": predictions, "metadata": { "billableCharacterCount": 1 } }))
        .into_response()
}

fn embed_content(model: &str, seen: &FakeRequest) -> Response {
    let parts = seen.body["content"]["parts"].as_array();
    let Some(text) = parts.and_then(|parts| parts.first()?["text"].as_str()) else {
        return invalid("The content is empty.");
    };
    // The task is told by the text; it is no part of the content.
    let text = text
        .rsplit_once(" query: ")
        .or_else(|| text.rsplit_once(" text: "));
    let text = text.map_or("", |(_, text)| text);
    let values = vertex_embedding(model, text, &seen.body["outputDimensionality"]);
    Json(json!({ "embedding": { "values": values }, "usageMetadata": {}, "truncated": false }))
        .into_response()
}

/// Accepts writes of the index. Searches do not show them: the index has texts, not vectors.
pub(super) fn write(shared: &FakeServer, seen: &FakeRequest) -> Response {
    if !is_known(shared, seen) {
        return unauthenticated();
    }
    Json(json!({})).into_response()
}

pub(super) fn find(shared: &FakeServer, seen: &FakeRequest) -> Response {
    if !is_known(shared, seen) {
        return unauthenticated();
    }
    if seen.body["deployedIndexId"] != DEPLOYED_INDEX {
        return google(404, "NOT_FOUND", "Deployed index is not found.");
    }
    let query = &seen.body["queries"][0];
    let vector: Vec<f64> = query["datapoint"]["featureVector"]
        .as_array()
        .map(|all| all.iter().filter_map(Value::as_f64).collect())
        .unwrap_or_default();
    if vector.len() != DIMENSIONS {
        return invalid("The dimension of the query does not match that of the index.");
    }
    let points = shared.lock().points.clone();
    let mut scored: Vec<(String, f64)> = points
        .into_iter()
        .map(|(id, text)| {
            let pairs = embedding(&text).into_iter().zip(&vector);
            let distance = pairs.map(|(one, other)| f64::from(one) * other).sum();
            (id, distance)
        })
        .collect();
    scored.sort_by(|one, other| other.1.total_cmp(&one.1));
    let count = query["neighborCount"].as_u64().unwrap_or(10);
    scored.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    let neighbors: Vec<Value> = scored
        .into_iter()
        .map(|(id, distance)| json!({ "datapoint": { "datapointId": id }, "distance": distance }))
        .collect();
    let nearest = json!({ "id": query["datapoint"]["datapointId"], "neighbors": neighbors });
    Json(json!({ "nearestNeighbors": [nearest] })).into_response()
}

/// Returns a parameter of the query string, percent-decoded.
fn argument(seen: &FakeRequest, name: &str) -> Option<String> {
    let (_, query) = seen.target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let (mut bytes, mut rest) = (Vec::new(), value.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(if byte == b'+' { b' ' } else { byte });
        }
    }
    String::from_utf8(bytes).ok()
}

/// Returns the URL and text of the pages that share a word with the query.
fn pages(shared: &FakeServer, query: &str, count: usize) -> Vec<(String, String)> {
    let words: Vec<String> = query
        .to_lowercase()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let all = shared.lock().pages.clone();
    let fits = |text: &str| {
        let text = text.to_lowercase();
        words.iter().any(|word| text.contains(word.as_str()))
    };
    all.into_iter()
        .filter(|(_, text)| fits(text))
        .take(count)
        .collect()
}

pub(super) fn custom_search(shared: &FakeServer, seen: &FakeRequest) -> Response {
    if argument(seen, "key").is_none_or(|key| key.is_empty()) {
        let message = "Method doesn't allow unregistered callers.";
        return google(403, "PERMISSION_DENIED", message);
    }
    let query = argument(seen, "q").unwrap_or_default();
    let count = argument(seen, "num").and_then(|text| text.parse::<usize>().ok());
    let known = argument(seen, "cx").is_some_and(|id| id == ENGINE);
    let Some(count) = count.filter(|count| (1..=10).contains(count) && known && !query.is_empty())
    else {
        return invalid("Request contains an invalid argument.");
    };
    let items: Vec<Value> = pages(shared, &query, count)
        .into_iter()
        .map(|(url, text)| {
            json!({ "kind": "customsearch#result", "title": text, "link": url, "snippet": text })
        })
        .collect();
    let mut body = json!({
        "kind": "customsearch#search",
        "searchInformation": { "searchTime": 0.1, "totalResults": items.len().to_string() },
    });
    if !items.is_empty() {
        body["items"] = Value::from(items);
    }
    Json(body).into_response()
}

pub(super) fn brave(shared: &FakeServer, seen: &FakeRequest) -> Response {
    if !seen.headers.contains_key("x-subscription-token") {
        let error = json!({ "code": "SUBSCRIPTION_TOKEN_INVALID", "status": 422,
            "detail": "The provided subscription token is invalid." });
        return (
            StatusCode::UNPROCESSABLE_ENTITY,
            Json(json!({ "error": error })),
        )
            .into_response();
    }
    let query = argument(seen, "q").unwrap_or_default();
    let count = argument(seen, "count")
        .and_then(|text| text.parse().ok())
        .unwrap_or(20);
    let results: Vec<Value> = pages(shared, &query, count)
        .into_iter()
        .map(|(url, text)| json!({ "title": text, "url": url, "description": text }))
        .collect();
    let mut body = json!({ "type": "search", "query": { "original": query } });
    if !results.is_empty() {
        body["web"] = json!({ "type": "search", "results": results });
    }
    Json(body).into_response()
}

pub(super) fn tavily(shared: &FakeServer, seen: &FakeRequest) -> Response {
    let query = seen.body["query"].as_str().unwrap_or_default();
    if query.is_empty() {
        return reply(422, json!({ "detail": [{ "msg": "query is empty" }] }));
    }
    let count = seen.body["max_results"].as_u64().unwrap_or(5);
    let with_content = seen.body["include_raw_content"].is_string();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let results = pages(shared, query, count).into_iter().map(|(url, text)| {
        let whole = with_content.then(|| format!("# {text}"));
        json!({ "title": text, "url": url, "content": text, "score": 0.9, "raw_content": whole })
    });
    let results: Vec<Value> = results.collect();
    reply(
        200,
        json!({ "query": query, "results": results, "response_time": 0.1 }),
    )
}

pub(super) fn searxng(shared: &FakeServer, seen: &FakeRequest) -> Response {
    // An instance refuses formats that its settings do not name.
    if argument(seen, "format").as_deref() != Some("json") {
        return reply(403, Value::Null);
    }
    let query = argument(seen, "q").unwrap_or_default();
    let found = pages(shared, &query, usize::MAX).into_iter();
    let results: Vec<Value> = found
        .map(|(url, text)| {
            json!({ "title": text, "url": url, "content": text, "score": 1.5,
                "publishedDate": "2026-11-01T00:00:00", "engine": "a" })
        })
        .collect();
    let unresponsive: [Value; 0] = [];
    reply(
        200,
        json!({ "query": query, "results": results, "unresponsive_engines": unresponsive }),
    )
}
