//! Fakes of an endpoint like OpenAI's and of Qdrant.

use axum::response::Response;
use http::Method;
use serde_json::{Value, json};

use super::answers::embedding;
use super::fault::reply;
use super::{FakeRequest, FakeServer};

/// Returns embeddings in another order than the texts': each has its index.
pub(super) fn openai(seen: &FakeRequest) -> Response {
    let texts = seen.body["input"].as_array().cloned().unwrap_or_default();
    if texts.is_empty() {
        let error = json!({ "message": "'input' is empty", "param": "input", "code": null });
        return reply(400, json!({ "error": error }));
    }
    let length = seen.body["dimensions"].as_u64();
    let listed = texts.iter().enumerate().map(|(index, text)| {
        let mut values = embedding(text.as_str().unwrap_or_default());
        if let Some(length) = length.and_then(|length| usize::try_from(length).ok()) {
            values.resize(length, 0.0);
        }
        json!({ "object": "embedding", "index": index, "embedding": values })
    });
    let mut listed: Vec<Value> = listed.collect();
    listed.reverse();
    reply(
        200,
        json!({ "object": "list", "data": listed, "model": seen.body["model"] }),
    )
}

fn error(status: u16, text: &str) -> Response {
    reply(status, json!({ "status": { "error": text }, "time": 0.0 }))
}

/// Serves the one collection `notes`; its vectors have the length of the first one.
pub(super) fn qdrant(shared: &FakeServer, seen: &FakeRequest) -> Response {
    let path = seen.target.split('?').next().unwrap_or_default();
    let Some(operation) = path.strip_prefix("/collections/notes/points") else {
        return error(404, "Not found: Collection doesn't exist!");
    };
    match operation {
        "" if seen.method == Method::PUT => upsert(shared, seen),
        "/query" => query(shared, seen),
        "/delete" => {
            let ids = seen.body["points"].as_array().cloned().unwrap_or_default();
            for id in ids {
                shared.lock().stored.remove(&id.to_string());
            }
            reply(
                200,
                json!({ "status": "ok", "result": { "status": "completed" } }),
            )
        }
        _ => error(404, "Not found"),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    let all = value.as_array();
    all.map(|all| all.iter().filter_map(Value::as_f64).collect())
        .unwrap_or_default()
}

/// Returns true if vectors of this length are refused.
fn is_refused(shared: &FakeServer, length: usize) -> bool {
    let inner = shared.lock();
    let first = inner.stored.values().next();
    first.is_some_and(|(known, _)| known.len() != length)
}

fn upsert(shared: &FakeServer, seen: &FakeRequest) -> Response {
    for point in seen.body["points"].as_array().into_iter().flatten() {
        let id = &point["id"];
        if !id.is_u64() && id.as_str().is_none_or(|id| id.len() != 36) {
            return error(
                400,
                "Format error in JSON body: value is not a valid point ID",
            );
        }
        let vector = numbers(&point["vector"]);
        if is_refused(shared, vector.len()) {
            return error(400, "Wrong input: Vector dimension error");
        }
        let stored = (vector, point["payload"].clone());
        shared.lock().stored.insert(id.to_string(), stored);
    }
    reply(
        200,
        json!({ "status": "ok", "result": { "status": "completed" } }),
    )
}

fn query(shared: &FakeServer, seen: &FakeRequest) -> Response {
    let wanted = numbers(&seen.body["query"]);
    if is_refused(shared, wanted.len()) {
        return error(400, "Wrong input: Vector dimension error");
    }
    let filter = &seen.body["filter"];
    let stored = shared.lock().stored.clone();
    let accepted = stored.into_iter().filter(|(_, (_, payload))| {
        let list = |name: &str| filter[name].as_array().cloned().unwrap_or_default();
        let mut must = list("must").into_iter();
        let mut must_not = list("must_not").into_iter();
        must.all(|one| holds(&one, payload)) && !must_not.any(|one| holds(&one, payload))
    });
    let mut scored: Vec<Value> = accepted
        .map(|(id, (vector, payload))| {
            let pairs = wanted.iter().zip(&vector);
            let score: f64 = pairs.map(|(one, other)| one * other).sum();
            let id: Value = serde_json::from_str(&id).unwrap_or_default();
            json!({ "id": id, "version": 1, "score": score, "payload": payload })
        })
        .collect();
    scored.sort_by(|one, other| {
        let score = |value: &Value| value["score"].as_f64().unwrap_or_default();
        score(other).total_cmp(&score(one))
    });
    let limit = seen.body["limit"].as_u64().unwrap_or(10);
    scored.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    reply(
        200,
        json!({ "status": "ok", "result": { "points": scored } }),
    )
}

fn holds(condition: &Value, payload: &Value) -> bool {
    if let Some(any) = condition["should"].as_array() {
        return any.iter().any(|one| holds(one, payload));
    }
    let field = condition["key"].as_str().unwrap_or_default();
    let value = &payload[field];
    if let Some(wanted) = condition["match"].get("value") {
        return value == wanted;
    }
    let number = value.as_f64();
    let bound = |name: &str| condition["range"][name].as_f64();
    number.is_some_and(|number| {
        bound("gte").is_none_or(|least| number >= least)
            && bound("lte").is_none_or(|most| number <= most)
    })
}
