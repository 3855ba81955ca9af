//! Facts of the providers' interfaces, as tables: errors, hints, streams, our own errors.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use jiff::Timestamp;

use super::judge::judge_at;
use super::*;

mod anthropic_errors;
mod figures;
mod google_errors;
mod openai_errors;
mod our_errors;
mod pieces;
mod streams;

fn now() -> Timestamp {
    "2026-11-06T08:49:30Z".parse().unwrap()
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    headers
}

fn judged(api: Api, status: u16, lines: &[(&'static str, &str)], body: &str) -> ModelVerdict {
    let headers = headers(lines);
    judge_at(api.into(), (status, &headers, body.as_bytes()), now())
}

fn kind(api: Api, status: u16, body: &str) -> Option<ModelErrorKind> {
    judged(api, status, &[], body).kind
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}
