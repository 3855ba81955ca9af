//! Responses of the fakes without a fault.

use std::sync::atomic::Ordering;

use axum::response::{IntoResponse as _, Json, Response};
use http::StatusCode;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::fault::google;
use super::{DEPLOYED_INDEX, ENGINE, FakeRequest, FakeServer};
use crate::agents::vector::local_embedding;

const DIMENSIONS: usize = 768;

/// Returns an embedding of another model than the local one: the values are reversed, so that
/// mixing up the models gives wrong results.
fn embedding(text: &str) -> Vec<f32> {
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

pub(super) fn token(shared: &FakeServer, seen: &FakeRequest) -> Response {
    let by_grant = seen.body.as_str().is_some_and(|form| {
        form.contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer")
            && form.contains("assertion=")
    });
    let by_place = seen
        .headers
        .get("metadata-flavor")
        .is_some_and(|value| value == "Google");
    if !by_grant && !by_place {
        let body = json!({ "error": "invalid_grant", "error_description": "no grant was given" });
        return (StatusCode::BAD_REQUEST, Json(body)).into_response();
    }
    let number = shared.tokens.fetch_add(1, Ordering::AcqRel) + 1;
    let text = format!("ya29.Kq7xZt4-{number}");
    Json(json!({ "access_token": text, "expires_in": 3599, "token_type": "Bearer" }))
        .into_response()
}

/// Returns true if the token was issued here and is not revoked.
fn is_known(shared: &FakeServer, seen: &FakeRequest) -> bool {
    let given = seen
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let number = given.and_then(|text| text.strip_prefix("Bearer ya29.Kq7xZt4-"));
    let number = number.and_then(|number| number.parse::<u64>().ok());
    number.is_some_and(|number| {
        number <= shared.tokens.load(Ordering::Acquire)
            && number > shared.revoked.load(Ordering::Acquire)
    })
}

fn unauthenticated() -> Response {
    let message = "Request had invalid authentication credentials.";
    google(401, "UNAUTHENTICATED", message)
}

fn invalid(message: &str) -> Response {
    google(400, "INVALID_ARGUMENT", message)
}

pub(super) fn embed(shared: &FakeServer, seen: &FakeRequest) -> Response {
    if !is_known(shared, seen) {
        return unauthenticated();
    }
    let instances = seen.body["instances"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if instances.is_empty() || instances.len() > 250 {
        return invalid("1 to 250 instances are allowed.");
    }
    let mut predictions = Vec::new();
    for instance in &instances {
        let Some(text) = instance["content"].as_str().filter(|text| !text.is_empty()) else {
            return invalid("The text content is empty.");
        };
        predictions.push(json!({ "embeddings": {
            "values": embedding(text),
            "statistics": { "token_count": text.split_whitespace().count(), "truncated": false },
        }}));
    }
    Json(json!({ "predictions": predictions, "metadata": { "billableCharacterCount": 1 } }))
        .into_response()
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
