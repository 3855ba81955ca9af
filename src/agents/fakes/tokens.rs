//! Token endpoints of the fakes: for a signed claim, a user's refresh token, a token of another
//! provider, an impersonation, and the metadata server.

use std::sync::atomic::Ordering;

use axum::response::Response;
use http::header::AUTHORIZATION;
use serde_json::json;

use super::fault::reply;
use super::{FakeRequest, FakeServer};

/// Grants that the endpoint accepts, with a field that each needs.
const GRANTS: [(&str, &str); 3] = [
    (
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer",
        "assertion=",
    ),
    ("grant_type=refresh_token", "refresh_token="),
    (
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange",
        "subject_token=",
    ),
];

pub(super) fn token(shared: &FakeServer, seen: &FakeRequest) -> Response {
    let impersonates = seen.target.ends_with(":generateAccessToken") && is_known(shared, seen);
    let by_grant = seen.body.as_str().is_some_and(|form| {
        let mut grants = GRANTS.iter();
        grants.any(|(grant, field)| form.contains(grant) && form.contains(field))
    });
    let flavor = seen.headers.get("metadata-flavor");
    let by_place = flavor.is_some_and(|value| value == "Google");
    if !impersonates && !by_grant && !by_place {
        let body = json!({ "error": "invalid_grant", "error_description": "no grant was given" });
        return reply(400, body);
    }
    let number = shared.tokens.fetch_add(1, Ordering::AcqRel) + 1;
    let text = format!("ya29.Kq7xZt4-{number}");
    if impersonates {
        let ends = "2999-01-01T00:00:00Z";
        return reply(200, json!({ "accessToken": text, "expireTime": ends }));
    }
    reply(
        200,
        json!({ "access_token": text, "expires_in": 3599, "token_type": "Bearer" }),
    )
}

/// Returns true if the token was issued here and is not revoked.
pub(super) fn is_known(shared: &FakeServer, seen: &FakeRequest) -> bool {
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
